// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/bpf"
	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/plane"
	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/report"
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
	c.Flags().StringVar(&u.dir, "pin-dir", enrolment.DefaultDir, "where the data plane is pinned")
	u.output.Flag(c)
}

func (u *upgrading) targetFlags(c *cobra.Command) {
	c.Flags().StringVar(&u.to, "to", "", "release to upgrade to: an eBPF object, or a file of 'upgrade verify --write' "+
		"(default: that of this binary)")
	u.sizes = bpf.DefaultSizes()
	sizeFlags(c.Flags(), &u.sizes)
	for _, name := range sizeNames(c) {
		c.Flags().Lookup(name).DefValue = "as it is"
	}
}

func (u *upgrading) ownerFlags(c *cobra.Command) {
	c.Flags().StringVar(&u.cgroup, "cgroup", "", "cgroup that the data plane is attached to (default: the root of cgroup2)")
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
	var err error
	if u.cgroup == "" {
		if u.cgroup, err = plane.CgroupRoot(); err != nil {
			return nil, err
		}
	}
	if _, err := os.Stat(u.dir); errors.Is(err, fs.ErrNotExist) {
		return nil, upgrade.ErrNotInstalled // and nothing is installed by an upgrade
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
				t.line("generation %d serves after %.2f s; 'evenkeel upgrade rollback' goes back", d.Serve, d.Seconds)
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

// upgradeStatusDocument says where upgrades stand.
type upgradeStatusDocument struct {
	Version     string                  `json:"version"`
	Dir         string                  `json:"pinDirectory"`
	Phase       string                  `json:"phase"`
	Word        report.Word             `json:"word"`
	Previous    uint16                  `json:"previous"` // what a rollback would serve, 0 for nothing
	Generations []upgradeGenerationLine `json:"generations"`
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
		Use: "status", Short: "Show which generations there are, which serve, and what a rollback would serve",
		Example: "  evenkeel upgrade status -o json | jq .previous",
		Args:    command.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := upgrade.Inspect(u.dir)
			if err != nil {
				return err
			}
			d := upgradeStatusDocument{
				Version: report.Version, Dir: u.dir, Phase: s.Phase, Word: report.WordOf(s), Previous: s.Previous, Holder: s.Holder,
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
}

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
	c.Flags().StringVar(&write, "write", "", "write the release to this file, for 'upgrade apply --to'")
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
	for _, r := range slices.Clone(d.Refusals) {
		t.line("  ! %s", upgrade.Describe([]upgrade.Change{r}))
	}
}
