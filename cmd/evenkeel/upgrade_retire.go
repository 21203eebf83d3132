// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/bpf"
	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/plane"
	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/report"
	"github.com/evenkeel/evenkeel/cmd/internal/command"
	"github.com/evenkeel/evenkeel/upgrade"
)

func newUpgradeRetireCommand(e command.Env) *cobra.Command {
	var u upgrading
	c := &cobra.Command{
		Use:   "retire",
		Short: "Remove what only a rollback, or old connections, would run",
		Long: `Remove every generation but the one that serves, and give its memory back. Old connections are carried over to what
serves. There is nothing to go back to afterwards. An agent does this by itself after --rollback-window, as soon as no
connection runs the old generation any more.`,
		Example: "  evenkeel upgrade retire --take-over",
		Args:    command.NoArgs,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if err := u.output.Check(c); err != nil {
				return err
			}
			u.begin = time.Now()
			s, err := u.open(c.Context(), e, plane.Of(bpf.DefaultSizes().MaxEntries()), upgrade.AcceptAny)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, s.Close()) }()
			if err := s.RetireOthers(c.Context()); err != nil {
				return err
			}
			d := &applyDocument{report.Version, true, s.Word().Serve(), time.Since(u.begin).Seconds(), u.switched.Seconds(), nil}
			return show(c, u.output, e.Stdout, d, func(t *table) { t.line("generation %d is all there is", d.Serve) })
		},
	}
	u.flags(c)
	u.ownerFlags(c)
	return c
}
