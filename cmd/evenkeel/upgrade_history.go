// SPDX-License-Identifier: Apache-2.0

package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/report"
	"github.com/evenkeel/evenkeel/cmd/internal/command"
	"github.com/evenkeel/evenkeel/upgrade"
)

// historyDocument is what became of generations.
type historyDocument struct {
	Version string          `json:"version"`
	Events  []upgrade.Event `json:"events"`
}

func newUpgradeHistoryCommand(e command.Env) *cobra.Command {
	var u upgrading
	c := &cobra.Command{
		Use: "history", Short: "Show the latest upgrades, rollbacks and canaries of this node",
		Long:    "Show the latest 16 upgrades, rollbacks and canaries of this node. They are kept in the kernel, so they outlive every\nagent, and go with the data plane.",
		Example: "  evenkeel upgrade history -o json | jq '.events[-1]'",
		Args:    command.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := upgrade.Inspect(u.dir)
			if err != nil {
				return err
			}
			return show(c, u.output, e.Stdout, historyDocument{report.Version, s.Events}, func(t *table) {
				t.head("WHEN", "WHAT", "FROM", "TO", "RELEASE", "WHY")
				for _, v := range s.Events {
					t.row(v.When.Local().Format(time.DateTime), v.Kind.String(), id(uint32(v.From)), id(uint32(v.To)),
						v.Digest[:min(12, len(v.Digest))], v.Text)
				}
			})
		},
	}
	u.flags(c)
	return c
}
