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

// upgradeStatusDocument says where upgrades stand.
type upgradeStatusDocument struct {
	Version     string                  `json:"version"`
	Dir         string                  `json:"pinDirectory"`
	Phase       string                  `json:"phase"`
	Word        report.Word             `json:"word"`
	Previous    uint16                  `json:"previous"` // what a rollback would serve, 0 for nothing
	Generations []upgradeGenerationLine `json:"generations"`
	Damages     []upgrade.Damage        `json:"damages"` // of the pinned state
	Holder      *upgrade.Holder         `json:"holder,omitempty"`
}

type upgradeGenerationLine struct {
	Number uint16 `json:"number"`
	Label  string `json:"label"`
	Digest string `json:"digest"`
	Role   string `json:"role"` // "", "bridge", "reverse"
	Live   bool   `json:"live"` // connections may run it
	Serves bool   `json:"serves"`
}

func newUpgradeStatusCommand(e command.Env) *cobra.Command {
	var u upgrading
	c := &cobra.Command{
		Use: "status", Short: "Show which generations there are, which serve, what a rollback would serve, and what is damaged",
		Example: "  evenkeel upgrade status -o json | jq .previous",
		Args:    command.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := upgrade.Inspect(u.dir)
			if err != nil {
				return err
			}
			d := upgradeStatusDocument{
				Version: report.Version, Dir: u.dir, Phase: s.Phase, Word: report.WordOf(s), Previous: s.Previous,
				Damages: s.Damages, Holder: s.Holder,
			}
			for _, g := range s.Generations {
				d.Generations = append(d.Generations, upgradeGenerationLine{
					g.Number, g.Label, g.Digest, string(g.Role), g.Live, g.Number == s.Serve,
				})
			}
			return show(c, u.output, e.Stdout, d, func(t *table) { printUpgradeStatus(t, &d) })
		},
	}
	u.flags(c)
	return c
}

func printUpgradeStatus(t *table, d *upgradeStatusDocument) {
	t.pair("serves", wordText(d.Word, false))
	back := "nothing"
	if d.Previous != 0 {
		back = fmt.Sprintf("generation %d", d.Previous)
	}
	t.pair("rollback would serve", back)
	if d.Holder != nil {
		t.pair("owner", fmt.Sprintf("pid %d, %s", d.Holder.PID, d.Holder.Command))
	}
	t.head("GENERATION", "RELEASE", "DIGEST", "IS")
	for _, g := range d.Generations {
		is := "loaded"
		switch {
		case g.Serves:
			is = "serves"
		case g.Number == d.Word.Canary:
			is = "canary"
		case g.Live:
			is = "live: old connections run it"
		case g.Number == d.Previous:
			is = "kept to go back to"
		}
		if g.Role != "" {
			is += ", " + g.Role
		}
		t.row(strconv.Itoa(int(g.Number)), g.Label, g.Digest[:min(12, len(g.Digest))], is)
	}
	for _, x := range d.Damages {
		t.line("  ! %s", x)
	}
}
