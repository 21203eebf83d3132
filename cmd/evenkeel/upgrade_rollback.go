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

func newUpgradeRollbackCommand(e command.Env) *cobra.Command {
	var u upgrading
	reason := "asked for"
	c := &cobra.Command{
		Use:   "rollback",
		Short: "Serve the generation again that served before",
		Long: `Serve the generation again that served before, for all connections at once. It is one store in the kernel, and
keeps everything that either release has written. The release that was left is not served again by an agent's start:
'upgrade apply' does that.`,
		Example: "  evenkeel upgrade rollback --take-over --reason 'connect errors'",
		Args:    command.NoArgs,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if err := u.output.Check(c); err != nil {
				return err
			}
			if reason == "" {
				return command.Usage(c, errors.New("--reason is empty"))
			}
			u.begin = time.Now()
			u.goBack = reason
			s, err := u.open(c.Context(), e, plane.Of(bpf.DefaultSizes().MaxEntries()), upgrade.AcceptAny)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, s.Close()) }()
			d := &applyDocument{report.Version, true, s.Word().Serve(), time.Since(u.begin).Seconds(), u.switched.Seconds(), nil}
			return show(c, u.output, e.Stdout, d, func(t *table) { t.line("generation %d serves again", d.Serve) })
		},
	}
	u.flags(c)
	u.ownerFlags(c)
	c.Flags().StringVar(&reason, "reason", reason, "goes to the history")
	return c
}
