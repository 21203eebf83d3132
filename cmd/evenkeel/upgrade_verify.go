// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"os"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/report"
	"github.com/evenkeel/evenkeel/cmd/internal/command"
	"github.com/evenkeel/evenkeel/upgrade"
)

// verifyDocument says what is wrong with the pinned state, or with a release.
type verifyDocument struct {
	Version  string           `json:"version"`
	OK       bool             `json:"ok"`
	Damages  []upgrade.Damage `json:"damages"`  // of the pinned state
	Release  string           `json:"release"`  // digest of the release that was tried
	Problem  string           `json:"problem"`  // what the trial found, "" if nothing
	Refusals []upgrade.Change `json:"refusals"` // what speaks against upgrading to it
}

func newUpgradeVerifyCommand(e command.Env) *cobra.Command {
	var u upgrading
	var write string
	c := &cobra.Command{
		Use:   "verify",
		Short: "Check the pinned state, and try a release without serving it",
		Long: `Check that everything the word names is pinned and filled, and load the release of this binary, or another, with
maps of its own: the verifier takes it, and it answers as it should. Nothing that serves is touched. It exits 1 if
something is wrong.`,
		Example: "  evenkeel upgrade verify\n  evenkeel upgrade verify --to mesh.o",
		Args:    command.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := u.output.Check(c); err != nil {
				return err
			}
			target, err := u.target(c)
			if err != nil {
				return err
			}
			if write != "" {
				if err := writeRelease(write, target); err != nil {
					return err
				}
			}
			d, err := u.verify(c.Context(), target)
			if err != nil {
				return err
			}
			if err := show(c, u.output, e.Stdout, d, func(t *table) { printVerify(t, d) }); err != nil {
				return err
			}
			if !d.OK {
				return command.Exit(1)
			}
			return nil
		},
	}
	u.flags(c)
	u.targetFlags(c)
	command.PathVar(c.Flags(), &write, "write", "", "write the release to this file, for 'upgrade apply --to'")
	return c
}

func writeRelease(path string, p upgrade.DataPlane) (err error) {
	r, err := upgrade.ReleaseOf(p)
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return r.Write(f)
}

func (u *upgrading) verify(ctx context.Context, p upgrade.DataPlane) (*verifyDocument, error) {
	s, err := upgrade.Inspect(u.dir)
	if err != nil {
		return nil, err
	}
	plan, err := upgrade.PlanUpgrade(u.dir, p)
	if err != nil {
		return nil, err
	}
	d := &verifyDocument{Version: report.Version, Damages: s.Damages, Release: plan.To.Digest, Refusals: plan.Refusals}
	if err := upgrade.Try(ctx, p); err != nil {
		d.Problem = err.Error()
	}
	d.OK = len(d.Damages) == 0 && d.Problem == "" && len(d.Refusals) == 0
	return d, nil
}

func printVerify(t *table, d *verifyDocument) {
	word := map[bool]string{true: "in order", false: "NOT in order"}
	t.pair("pinned state", word[len(d.Damages) == 0])
	t.pair("release "+d.Release[:min(12, len(d.Release))], word[d.Problem == ""])
	t.pair("upgrade to it", map[bool]string{true: "possible", false: "refused"}[len(d.Refusals) == 0])
	for _, x := range d.Damages {
		t.line("  ! %s", x)
	}
	if d.Problem != "" {
		t.line("  ! %s", d.Problem)
	}
	for _, r := range d.Refusals {
		t.line("  ! %s", upgrade.Describe([]upgrade.Change{r}))
	}
}
