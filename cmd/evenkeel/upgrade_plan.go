// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/report"
	"github.com/evenkeel/evenkeel/cmd/internal/command"
	"github.com/evenkeel/evenkeel/upgrade"
)

// planDocument is what would be done.
type planDocument struct {
	Version string `json:"version"`
	*upgrade.Plan
}

func newUpgradePlanCommand(e command.Env) *cobra.Command {
	var u upgrading
	c := &cobra.Command{
		Use:   "plan",
		Short: "Say what an upgrade would do, map by map, and what it risks",
		Long: `Say what an upgrade of this node to the release of this binary, or another, would do: which maps stay, which
entries move and how long that takes, which hooks come and go, whether a share of the connections can try it first, how
one would go back. It changes nothing and needs no lock. It exits 1 if the upgrade would be refused.`,
		Example: "  evenkeel upgrade plan\n  evenkeel upgrade plan --max-services 50000 -o json | jq .refusals",
		Args:    command.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := u.output.Check(c); err != nil {
				return err
			}
			target, err := u.target(c)
			if err != nil {
				return err
			}
			p, err := upgrade.PlanUpgrade(u.dir, target)
			if err != nil {
				return err
			}
			d := planDocument{report.Version, p}
			if err := show(c, u.output, e.Stdout, d, func(t *table) { printPlan(t, p) }); err != nil {
				return err
			}
			if len(p.Refusals) > 0 {
				return command.Exit(1)
			}
			return nil
		},
	}
	u.flags(c)
	u.targetFlags(c)
	return c
}

func printPlan(t *table, p *upgrade.Plan) {
	name := func(r upgrade.ReleaseName) string {
		return fmt.Sprintf("%s (%s)", r.Label, r.Digest[:min(12, len(r.Digest))])
	}
	if p.Same {
		t.line("nothing to do: %s serves already, as generation %d", name(p.To), p.From.Generation)
		return
	}
	t.pair("from", fmt.Sprintf("%s, generation %d", name(p.From), p.From.Generation))
	t.pair("to", name(p.To))
	t.pair("connections", map[string]string{
		"next": "old ones finish on the old generation", "floor": "all are carried over at once",
	}[p.Move])
	t.pair("canary", map[bool]string{true: "possible", false: "not by connection: try one node first"}[p.Canary])
	t.pair("way back", map[string]string{
		"word": "one store", "bridge": "one store; entries move back behind it", "none": "none",
	}[p.Rollback])
	t.pair("entries move for", fmt.Sprintf("%.1f s (estimated)", p.Seconds))
	t.pair("memory meanwhile", "+"+memory(p.Memory))
	t.head("MAP", "IS", "ENTRIES", "ROOM", "SECONDS", "MEMORY", "NOTE")
	for _, m := range p.Maps {
		room := strconv.FormatUint(uint64(m.Room), 10)
		if m.Had != 0 && m.Room != 0 && m.Had != m.Room {
			room = fmt.Sprintf("%d -> %d", m.Had, m.Room)
		}
		is, seconds, entries := string(m.Action), "", ""
		if m.From != "" {
			is += " from " + m.From
		}
		if m.Action == upgrade.ActionMigrate || m.Action == upgrade.ActionCopy {
			seconds, entries = fmt.Sprintf("%.2f", m.Seconds), count(m.Entries)
		}
		t.row(m.Name, is, entries, room, seconds, memory(m.Memory), m.Note)
	}
	if len(p.Hooks) > 0 {
		t.head("HOOK", "IS")
		for _, h := range p.Hooks {
			t.row(h.Name, string(h.Action))
		}
	}
	if len(p.Risks) > 0 {
		t.line("")
		for _, r := range p.Risks {
			t.line("risk: %s", r)
		}
	}
	if len(p.Refusals) > 0 {
		t.line("")
		for _, r := range p.Refusals {
			t.line("refused: %s", upgrade.Describe([]upgrade.Change{r}))
		}
	}
}
