// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/cilium/ebpf"
	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/bpf"
	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/plane"
	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/report"
	"github.com/evenkeel/evenkeel/cmd/internal/command"
	"github.com/evenkeel/evenkeel/cmd/internal/enrolment"
	"github.com/evenkeel/evenkeel/upgrade"
)

func newExerciseCommand(e command.Env) *cobra.Command {
	x := exercise{}
	var o command.Output
	c := &cobra.Command{
		Use: "exercise", Hidden: true,
		Short: "Serve by one generation and by another in turn, under traffic",
		Long: `Load the release that serves once more, as another generation, and let the two serve in turn. Every connection stays
with the generation that it began with; a connection that does not is counted, and makes this command exit 1. In the end
the generation that served before serves, and the other is removed: its connections are carried over.

No agent may be running, for it would be the owner of the word.`,
		Example: "  evenkeel upgrade exercise --flips 1000",
		Args:    command.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.Check(c); err != nil {
				return err
			}
			if x.flips < 1 || x.interval < 0 {
				return command.Usage(c, errors.New("--flips is at least 1, --interval at least 0"))
			}
			d, err := x.run(c.Context(), e)
			if err != nil {
				return err
			}
			if err := show(c, o, e.Stdout, d, func(t *table) { printExercise(t, d) }); err != nil {
				return err
			}
			if d.Moved > d.Carried {
				return command.Exit(1)
			}
			return nil
		},
	}
	f := c.Flags()
	command.PathVar(f, &x.dir, "pin-dir", enrolment.DefaultDir, "where the data plane is pinned")
	command.PathVar(f, &x.cgroup, "cgroup", "", "cgroup that the data plane is to be attached to (default: the one that it is attached to)")
	f.IntVar(&x.flips, "flips", 1000, "how often to change the generation that serves")
	f.DurationVar(&x.interval, "interval", time.Millisecond, "time between two changes")
	f.BoolVar(&x.takeOver, "take-over", false, "kill the agent that is running")
	o.Flag(c)
	return c
}

// exercise is one run.
type exercise struct {
	dir, cgroup string
	flips       int
	interval    time.Duration
	takeOver    bool

	store *upgrade.Store
}

// exerciseDocument says what became of the connections.
type exerciseDocument struct {
	Version string `json:"version"`
	Flips   int    `json:"flips"`
	// Moved counts sockets that one generation has run after another had, while the two were serving in turn. Carried
	// is how many of them had to: sockets with a stamp of a generation that is no more, if there were any at the
	// beginning.
	Moved   uint64 `json:"moved"`
	Carried uint64 `json:"carried"`
	// Connects are connections that were given an endpoint meanwhile, by number of the generation; Counters all that
	// the two have counted meanwhile.
	Connects map[string]uint64            `json:"connects"`
	Counters map[string]map[string]uint64 `json:"counters"`
	Seconds  float64                      `json:"seconds"`
}

func (x *exercise) run(ctx context.Context, e command.Env) (d *exerciseDocument, err error) {
	if x.cgroup == "" {
		if x.cgroup, err = attachedCgroup(x.dir); err != nil {
			return nil, err
		}
	}
	sizes, err := pinnedSizes(x.dir)
	if err != nil {
		return nil, err
	}
	log, err := newLog(e.Stderr, "warn", "text")
	if err != nil {
		return nil, err
	}
	var incumbent *upgrade.Holder
	if x.takeOver {
		if incumbent, err = upgrade.FindHolder(x.dir); err != nil {
			return nil, err
		}
	}
	x.store, err = upgrade.Open(ctx, plane.Of(sizes), upgrade.Options{
		Dir: x.dir, Cgroup: x.cgroup, TakeOver: incumbent, Log: log,
	})
	if err != nil {
		var held *upgrade.HeldError
		if errors.As(err, &held) {
			return nil, fmt.Errorf("%w (--take-over kills it)", err)
		}
		return nil, err
	}
	defer func() { err = errors.Join(err, x.store.Close()) }()
	return x.alternate(ctx)
}

// pinnedSizes are the sizes of the maps that there are, so that the generation that is loaded shares them.
func pinnedSizes(dir string) (map[string]uint32, error) {
	state, err := upgrade.Inspect(dir)
	if err != nil {
		return nil, err
	}
	sizes := bpf.DefaultSizes().MaxEntries()
	all := state.Maps
	for _, g := range state.Generations {
		all = append(all, g.Maps...)
	}
	for _, m := range all {
		if _, sized := sizes[m.Name]; sized {
			sizes[m.Name] = m.MaxEntries
		}
	}
	for _, g := range state.Generations { // of frozen maps there is more room than is allowed to be used
		for _, name := range bpf.Frozen() {
			if n, sized := g.Sizes[name]; sized && sizes[name] != 0 && g.Number == state.Serve {
				sizes[name] = n
			}
		}
	}
	return sizes, nil
}

// alternate loads the other generation, lets the two serve in turn, and ends with the one that served.
func (x *exercise) alternate(ctx context.Context) (*exerciseDocument, error) {
	d := &exerciseDocument{Version: report.Version, Flips: x.flips, Connects: make(map[string]uint64)}
	carried, err := x.settle(ctx)
	if err != nil {
		return nil, err
	}
	d.Carried = carried
	one := x.store.Word().Serve()
	two, err := x.load(ctx)
	if err != nil {
		return nil, err
	}
	numbers := []uint16{one, two}
	before, err := x.counters(numbers)
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	flipped := x.flip(ctx, one, two)
	d.Seconds = time.Since(begin).Seconds()
	after, err := x.counters(numbers)
	if err := errors.Join(flipped, err, x.end(ctx, one, two)); err != nil {
		return nil, err
	}
	d.Counters = after
	for number, counters := range after {
		for name := range counters {
			counters[name] -= before[number][name]
		}
		d.Moved += counters["moved"]
		d.Connects[number] = counters["connect"]
	}
	return d, nil
}

// settle makes sure that the next number comes right after the one that serves: otherwise sockets may carry a number in
// between, which must not come back to life. If need be a new generation takes over from all that there are, which
// carries such sockets over; settle returns how many there are.
func (x *exercise) settle(ctx context.Context) (carried uint64, err error) {
	word := x.store.Word()
	if x.store.Differs() {
		return 0, fmt.Errorf("exercise %s: another release serves, and an exercise loads this one: 'evenkeel upgrade apply' makes "+
			"it serve", x.dir)
	}
	if word.Canary() != 0 || word.Floor() != word.Serve() {
		return 0, fmt.Errorf("exercise %s: connections of generation %d may go on (%v), and an exercise is of the one that serves "+
			"and one more: 'evenkeel upgrade retire' carries them over, and ends the way back", x.dir, word.Floor(), word)
	}
	next, err := word.Next(x.store.Last())
	if err != nil {
		return 0, err
	}
	if x.store.Last() == word.Serve() && word.Upgrade(next).Floor() == word.Floor() {
		return 0, nil
	}
	old := word.Serve()
	if next, err = x.load(ctx); err != nil {
		return 0, err
	}
	if err := x.store.Swap(word, word.Upgrade(next)); err != nil {
		return 0, err
	}
	if carried, err = x.countFlows(next); err != nil {
		return 0, err
	}
	return carried, x.store.Retire(ctx, old)
}

// countFlows counts the sockets that a generation has not seen yet.
func (x *exercise) countFlows(number uint16) (n uint64, err error) {
	g := x.store.Generation(number)
	err = bpf.Flows(g.Programs[bpf.MeshProgDumpFlows], x.store.Frozen()[bpf.MeshMapSockets],
		func(r bpf.MeshFlowRecord) error {
			if r.Flow.Ran != number {
				n++
			}
			return nil
		})
	return n, err
}

// load loads one more generation and returns its number.
func (x *exercise) load(ctx context.Context) (uint16, error) {
	last := x.store.Last()
	n, err := x.store.Word().Next(last)
	if err != nil {
		return 0, err
	}
	if upgrade.Sweep(last, n) {
		return 0, fmt.Errorf("exercise %s: the numbers of generations come round at %d: uninstall and install it anew",
			x.dir, n)
	}
	if err := x.store.Load(ctx, n); err != nil {
		return 0, err
	}
	return n, nil
}

// flip changes what serves, so often. The other is the canary then, with no share: it stays live for its connections
// and gets no new ones.
func (x *exercise) flip(ctx context.Context, one, two uint16) error {
	tick := time.NewTimer(x.interval)
	defer tick.Stop()
	for i := range x.flips {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			tick.Reset(x.interval)
		}
		serve, rest := two, one
		if i%2 == 1 {
			serve, rest = one, two
		}
		word := x.store.Word()
		if err := x.store.Swap(word, word.WithServe(serve).WithCanary(rest, 0)); err != nil {
			return err
		}
	}
	return nil
}

// end serves the first generation alone and removes the other. It does so even if the exercise was cut short.
func (x *exercise) end(ctx context.Context, one, two uint16) error {
	word := x.store.Word()
	if err := x.store.Swap(word, word.WithServe(one).WithCanary(0, 0)); err != nil {
		return err
	}
	return x.store.Retire(context.WithoutCancel(ctx), two)
}

func (x *exercise) counters(numbers []uint16) (map[string]map[string]uint64, error) {
	all := make(map[string]map[string]uint64)
	for _, n := range numbers {
		var m *ebpf.Map
		if g := x.store.Generation(n); g != nil {
			m = g.Maps[bpf.MeshMapCounters]
		}
		if m == nil {
			return nil, fmt.Errorf("generation %d has no counters", n)
		}
		counters, err := plane.Counters(m)
		if err != nil {
			return nil, fmt.Errorf("generation %d: %w", n, err)
		}
		all[strconv.Itoa(int(n))] = counters
	}
	return all, nil
}

func printExercise(t *table, d *exerciseDocument) {
	t.pair("flips", fmt.Sprintf("%d in %.2f s", d.Flips, d.Seconds))
	t.pair("connections moved", count(d.Moved))
	if d.Carried > 0 {
		t.pair("of which had to", "at most "+count(d.Carried))
	}
	t.head("GENERATION", "CONNECTIONS", "ALL COUNTERS")
	for number, n := range d.Connects {
		t.row(number, count(n), countersText(d.Counters[number]))
	}
}
