// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/bpf"
	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/plane"
	"github.com/evenkeel/evenkeel/cmd/internal/command"
	"github.com/evenkeel/evenkeel/cmd/internal/enrolment"
	"github.com/evenkeel/evenkeel/upgrade"
)

func newUpgradeCommand(e command.Env) *cobra.Command {
	c := &cobra.Command{
		Use:   "upgrade",
		Short: "Change the release, or the sizes, of the data plane while it carries traffic",
		Long: `Change the programs and maps that serve while they carry traffic, and go back.

Starting another release's agent does the same by itself, see 'evenkeel agent --on-start'. These commands do it without
one: for a look at what would happen, for sizes, for going back at once.`,
		Example: "  evenkeel upgrade plan\n  evenkeel upgrade apply --take-over\n  evenkeel upgrade rollback --take-over",
	}
	c.AddCommand(newUpgradePlanCommand(e), newUpgradeApplyCommand(e), newUpgradeStatusCommand(e),
		newUpgradeRollbackCommand(e), newUpgradeRetireCommand(e), newUpgradeHistoryCommand(e), newUpgradeVerifyCommand(e), newExerciseCommand(e))
	return command.Group(c)
}

// upgrading is what the commands have in common.
type upgrading struct {
	dir, cgroup, to string
	takeOver        bool
	goBack          string // why, "" for no
	begin           time.Time
	switched        time.Duration // until the word was stored, 0 if it was not
	sizes           bpf.Sizes
	output          command.Output
}

func (u *upgrading) flags(c *cobra.Command) {
	command.PathVar(c.Flags(), &u.dir, "pin-dir", enrolment.DefaultDir, "where the data plane is pinned")
	u.output.Flag(c)
}

func (u *upgrading) targetFlags(c *cobra.Command) {
	command.PathVar(c.Flags(), &u.to, "to", "", "release to upgrade to: an eBPF object, or a file of 'upgrade verify --write' "+
		"(default: that of this binary)")
	u.sizes = bpf.DefaultSizes()
	sizeFlags(c.Flags(), &u.sizes)
	for _, name := range sizeNames(c) {
		c.Flags().Lookup(name).DefValue = "as it is"
	}
}

func (u *upgrading) ownerFlags(c *cobra.Command) {
	command.PathVar(c.Flags(), &u.cgroup, "cgroup", "", "cgroup that the data plane is to be attached to (default: the one that it is attached to)")
	c.Flags().BoolVar(&u.takeOver, "take-over", false, "kill the agent that is running, if one is")
}

func sizeNames(c *cobra.Command) []string {
	var names []string
	for _, name := range []string{"max-services", "max-endpoints", "max-workloads", "max-affinities", "max-peers"} {
		if c.Flags().Lookup(name) != nil {
			names = append(names, name)
		}
	}
	return names
}

// target is the release that is asked for. Sizes that are not are those that there are.
func (u *upgrading) target(c *cobra.Command) (upgrade.DataPlane, error) {
	if err := checkSizes(u.sizes); err != nil {
		return upgrade.DataPlane{}, command.Usage(c, err)
	}
	sizes, err := pinnedSizes(u.dir)
	if err != nil {
		return upgrade.DataPlane{}, err
	}
	for name, n := range u.sizes.MaxEntries() {
		if flag := bpf.Flag(name); flag != "" && c.Flags().Changed(flag[2:]) {
			sizes[name] = n
		}
	}
	if u.to == "" {
		return plane.Of(sizes), nil
	}
	return releaseFile(u.to, sizes)
}

// releaseFile reads a release from a file: an object, which has the roles that this release's has, or one that was
// written down whole.
func releaseFile(path string, sizes map[string]uint32) (upgrade.DataPlane, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return upgrade.DataPlane{}, err
	}
	if bytes.HasPrefix(content, []byte("\x7fELF")) {
		p, err := plane.OfObject(content, sizes)
		if err != nil {
			return upgrade.DataPlane{}, fmt.Errorf("%s: %w", path, err)
		}
		p.Label = path
		return p, nil
	}
	r, err := upgrade.ReadRelease(bytes.NewReader(content))
	if err != nil {
		return upgrade.DataPlane{}, fmt.Errorf("%s is neither an eBPF object nor a release: %w", path, err)
	}
	p := r.Plane()
	p.Trial = plane.Trial
	for name, n := range sizes {
		if _, has := p.Sizes[name]; has {
			p.Sizes[name] = n
		}
	}
	return p, nil
}

// open takes the pinned state, whatever release serves.
func (u *upgrading) open(ctx context.Context, e command.Env, p upgrade.DataPlane, accept upgrade.Accept) (*upgrade.Store, error) {
	if _, err := os.Stat(u.dir); errors.Is(err, fs.ErrNotExist) {
		return nil, upgrade.ErrNotInstalled // and nothing is installed by an upgrade
	}
	var err error
	if u.cgroup == "" {
		if u.cgroup, err = attachedCgroup(u.dir); err != nil {
			return nil, err
		}
	}
	log, err := newLog(e.Stderr, "warn", "text")
	if err != nil {
		return nil, err
	}
	var incumbent *upgrade.Holder
	if u.takeOver {
		if incumbent, err = upgrade.FindHolder(u.dir); err != nil {
			return nil, err
		}
	}
	s, err := upgrade.Open(ctx, p, upgrade.Options{
		Dir: u.dir, Cgroup: u.cgroup, TakeOver: incumbent, Log: log, Accept: accept, GoBack: u.goBack,
		Trace: func(step upgrade.Step, _ string) {
			if step == upgrade.StepSwapWord {
				u.switched = time.Since(u.begin)
			}
		},
	})
	return s, explainUpgrade(err)
}

// attachedCgroup is the cgroup that what is pinned is attached to; the root of cgroup2 where it is attached to none, or
// cannot be looked at, of which whoever takes it says more.
func attachedCgroup(dir string) (string, error) {
	state, err := upgrade.Inspect(dir)
	if err != nil {
		return plane.CgroupRoot()
	}
	for _, h := range state.Hooks {
		if h.At == upgrade.Cgroup.String() && filepath.IsAbs(h.Target) { // one that is gone has a number only
			return h.Target, nil
		}
	}
	return plane.CgroupRoot()
}

func explainUpgrade(err error) error {
	var held *upgrade.HeldError
	var refused *upgrade.RefusedError
	switch {
	case errors.As(err, &held):
		return fmt.Errorf("%w (--take-over kills it; what it does on its next start '--on-start' says)", err)
	case errors.As(err, &refused):
		return fmt.Errorf("refused, and what serves goes on untouched: %s", upgrade.Describe(refused.Changes))
	}
	return err
}
