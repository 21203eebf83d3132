// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/plane"
	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/report"
	"github.com/evenkeel/evenkeel/cmd/internal/command"
	"github.com/evenkeel/evenkeel/upgrade"
)

// applyDocument says what was done.
type applyDocument struct {
	Version string  `json:"version"`
	Applied bool    `json:"applied"` // false if it served already
	Serve   uint16  `json:"serve"`   // the generation that serves
	Seconds float64 `json:"seconds"`
	// Switched is how long it took until the kernel had the word by which it serves, 0 if that was not changed.
	Switched float64       `json:"switchedSeconds"`
	Plan     *upgrade.Plan `json:"plan,omitempty"`
}

// canarying are the flags of a canary.
type canarying struct {
	steps string
	hold  time.Duration
}

func (y *canarying) flags(c *cobra.Command) {
	c.Flags().StringVar(&y.steps, "canary", "", "shares of new connections that try the release, one after the other: "+
		"5%,25%,100%; 0% is the pods that were enrolled with --canary")
	c.Flags().DurationVar(&y.hold, "hold", 30*time.Second, "how long each share is watched")
}

// canary is nil if none is asked for.
func (y *canarying) canary(c *cobra.Command) (*upgrade.Canary, error) {
	if y.steps == "" {
		return nil, nil
	}
	steps, err := upgrade.ParseShares(y.steps)
	if err == nil && y.hold <= 0 {
		err = fmt.Errorf("--hold %v: more than 0", y.hold)
	}
	if err != nil {
		return nil, command.Usage(c, err)
	}
	return plane.Canary(steps, y.hold), nil
}

func newUpgradeApplyCommand(e command.Env) *cobra.Command {
	var u upgrading
	var y canarying
	c := &cobra.Command{
		Use:   "apply",
		Short: "Serve the release of this binary, or another, or other sizes",
		Long: `Make the release of this binary serve, or that of a file, or the same with other sizes. Connections go on. What is
wrong with the release is found before anything that serves is touched.

With --canary a share of the new connections tries it first. Connect errors, resets, refusals by reason and the time of
handshakes are compared with those of the release that serves; if they are worse it is withdrawn, and the history says
why.

No agent may be running, for it is the owner of the state. One that is started later with --on-start=upgrade makes its
own release and sizes serve; one of the same goes on with what is done here.`,
		Example: `  evenkeel upgrade apply --take-over
  evenkeel upgrade apply --canary 5%,25%,100% --hold 30s
  evenkeel upgrade apply --max-services 50000`,
		Args: command.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := u.output.Check(c); err != nil {
				return err
			}
			canary, err := y.canary(c)
			if err != nil {
				return err
			}
			d, err := u.apply(c, e, canary)
			if err != nil {
				return err
			}
			return show(c, u.output, e.Stdout, d, func(t *table) {
				if !d.Applied {
					t.line("nothing to do: it serves already, as generation %d", d.Serve)
					return
				}
				back := "; 'evenkeel upgrade rollback' goes back"
				if d.Plan.Rollback == "none" {
					back = ""
				}
				t.line("generation %d serves after %.2f s%s", d.Serve, d.Seconds, back)
			})
		},
	}
	u.flags(c)
	u.targetFlags(c)
	u.ownerFlags(c)
	y.flags(c)
	return c
}

func (u *upgrading) apply(c *cobra.Command, e command.Env, canary *upgrade.Canary) (_ *applyDocument, err error) {
	u.begin = time.Now()
	target, err := u.target(c)
	if err != nil {
		return nil, err
	}
	s, err := u.open(c.Context(), e, target, upgrade.AcceptUpgrade)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	bar := newProgress(e.Stderr)
	p, err := s.Upgrade(c.Context(), upgrade.Attempt{Canary: canary, Progress: func(p upgrade.Progress) {
		bar.show(stage(p), int(p.Done), int(p.Total))
	}})
	bar.clear()
	if err != nil {
		return nil, explainUpgrade(err)
	}
	return &applyDocument{report.Version, !p.Same, s.Word().Serve(), time.Since(u.begin).Seconds(), u.switched.Seconds(), p}, nil
}

func stage(p upgrade.Progress) string {
	if p.Map != "" {
		return p.Doing + " " + p.Map
	}
	return p.Doing
}
