// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/bench/sample"
)

// Options say what to measure, and with what.
type Options struct {
	Suite Suite
	// Binary is the evenkeel that is measured, Load the evenkeel-load that makes traffic; Upgrade needs none.
	Binary, Load string
	Release      string
	// Only are ids of rows, in which * and ? stand for others. Empty: all rows, and with All the variants, too.
	Only []string
	All  bool
	// Quick measures less of each: the same rows, wider intervals.
	Quick bool
	Seed  uint64
	// Patience is how long to wait, in all, for others to leave the machine alone.
	Patience time.Duration
	// Rounds, if not 0, is how many of everything; Services how many mesh and NAT know while there is traffic. Both are
	// for tests of the benchmark itself.
	Rounds, Services int
	// Control makes one measurement wrong on purpose.
	Control Control
	// Progress is told how far a trial has come; total is 0 where there is nothing to count.
	Progress func(trial string, done, total int)
	// Done is told each row when it is known.
	Done func(Result)
}

// Control is something that must be noticed.
type Control string

// The controls.
const (
	NoControl Control = ""
	// SlowAgain wastes time in the second no mesh: the gates must fail.
	SlowAgain Control = "slow-again"
	// SlowMesh wastes time in the mesh: rows of traffic must say no.
	SlowMesh Control = "slow-mesh"
)

// effort is how much is measured: how many rounds of what.
type effort struct {
	block   time.Duration // of traffic
	rounds  int
	starts  int // processes of package stopwatch
	agents  int // starts of the agent
	batches int
	changes int // in a batch
	windows int
	window  time.Duration // with and without traffic, in which the agent is watched

	switches    int           // rounds of what generations cost
	flips       time.Duration // in a round
	connections int           // over which gaps are measured
	migrations  int           // of a million entries
	imitations  int           // of each system
}

var (
	fullEffort = effort{
		block: 250 * time.Millisecond, rounds: 40, starts: 10, agents: 5, batches: 20, changes: 200,
		windows: 10, window: 10 * time.Second,
		switches: 20, flips: 5 * time.Second, connections: 10_000, migrations: 10, imitations: 5,
	}
	quickEffort = effort{
		block: 200 * time.Millisecond, rounds: 12, starts: 4, agents: 2, batches: 8, changes: 100,
		windows: 4, window: 2 * time.Second,
		switches: 8, flips: time.Second, connections: 1000, migrations: 3, imitations: 1,
	}
)

// session is one run.
type session struct {
	Options
	effort       effort
	scale        Scale // of what mesh and NAT know while there is traffic
	cpus         int
	patience     time.Duration // what is left of it
	dir          string        // for files, removed at the end
	binary, load string        // copies of what is measured
	files        map[Scale]string

	kernelThreads []int
	usage         func() (usage, error) // of the machine: readUsage, but in tests

	sites                             []*site
	plain, nat, mesh, engine, upgrade *site
	peers                             map[string]*site // by arm
}

func (s *session) progress(trial string, done, total int) {
	if s.Progress != nil {
		s.Progress(trial, done, total)
	}
}

// Run measures. It returns an error only if nothing could be measured, or ctx has ended: what kept single rows from
// being measured is in the document. A *SelectionError is one of Options.Only.
func Run(ctx context.Context, o Options) (d *Document, err error) {
	trials, err := choose(o.Suite.catalogue(), o.Only, o.All)
	if err != nil {
		return nil, err
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("the benchmark makes network namespaces and loads BPF programs: run it as root")
	}
	s := &session{Options: o, effort: fullEffort, usage: readUsage, cpus: runtime.NumCPU(), files: map[Scale]string{}, peers: map[string]*site{},
		patience: o.Patience}
	if o.Quick {
		s.effort = quickEffort
	}
	s.scale = trafficScale
	if o.Services > 0 {
		s.scale.Services = o.Services
	}
	if n := o.Rounds; n > 0 {
		e := &s.effort
		e.rounds, e.starts, e.agents, e.batches, e.windows = n, n, n, n, n
		e.changes, e.block, e.window = 10, 50*time.Millisecond, 200*time.Millisecond
		e.switches, e.migrations, e.imitations, e.flips, e.connections = n, n, n, 200*time.Millisecond, 100
	}
	d = &Document{
		Version: Version, Release: o.Release, Started: time.Now().UTC().Truncate(time.Second), Quick: o.Quick, Seed: o.Seed,
		Rows: []Result{}, Gates: []Gate{}, Problems: []Problem{}, Trials: []Series{},
	}
	if d.Machine, err = readMachine(); err != nil {
		return nil, err
	}
	if s.kernelThreads, err = kernelThreads(); err != nil {
		return nil, err
	}
	if s.dir, err = os.MkdirTemp("", "evenkeel-bench-"); err != nil {
		return nil, fmt.Errorf("copy what is measured: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(s.dir)) }()
	// Copies: pages that the agent shared with this process would be counted half, and a rebuild beside us would
	// change what is measured.
	if s.binary, err = copyTo(s.dir, o.Binary); err != nil {
		return nil, err
	}
	if o.Load != "" {
		if s.load, err = copyTo(s.dir, o.Load); err != nil {
			return nil, err
		}
	}
	defer func() { err = errors.Join(err, s.closeSites(ctx)) }()
	for _, t := range trials {
		if err := s.measure(ctx, t, d); err != nil {
			return nil, err
		}
	}
	d.Seconds = time.Since(d.Started).Seconds()
	return d, nil
}

func copyTo(dir, file string) (string, error) {
	in, err := os.Open(file)
	if err != nil {
		return "", fmt.Errorf("copy what is measured: %w", err)
	}
	defer in.Close()
	path := filepath.Join(dir, filepath.Base(file))
	out, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return "", fmt.Errorf("copy what is measured: %w", err)
	}
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Close()); err != nil {
		return "", fmt.Errorf("copy %s: %w", file, err)
	}
	return path, nil
}

// measure runs a trial and adds what it found to d.
func (s *session) measure(ctx context.Context, t trial, d *Document) error {
	s.progress(t.name, 0, 0)
	series, err := t.run(ctx, s, t.name)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	void := map[string]Gate{}
	if err == nil {
		d.Trials = append(d.Trials, series)
		for _, g := range series.gates(s.Seed) {
			for _, r := range t.rows {
				if r.metric == g.Metric {
					g.Rows = append(g.Rows, r.ID)
				}
			}
			if len(g.Rows) == 0 {
				continue
			}
			d.Gates = append(d.Gates, g)
			if !g.OK {
				void[g.Metric] = g
			}
		}
	}
	for _, row := range t.rows {
		result := Result{ID: row.ID, Unit: row.Unit, ToReach: row.Target.String(), OK: sample.Undecided,
			Command: s.command(row)}
		problem := func(format string, args ...any) {
			d.Problems = append(d.Problems, Problem{Row: row.ID, Reason: fmt.Sprintf(format, args...)})
		}
		if err != nil {
			problem("%v", err)
		} else if samples := row.samples(&series); len(samples) == 0 {
			problem("nothing was measured")
		} else {
			i := sample.Median(samples, s.Seed)
			result.Value, result.Low, result.High = &i.Value, &i.Low, &i.High
			g, is := void[row.metric]
			switch {
			case series.Disturbed != "":
				problem("%s", series.Disturbed)
			case is:
				problem("void: no mesh against itself is %.3f [%.3f, %.3f] in %s, which leaves 1 by more than %v %%",
					g.Value, g.Low, g.High, g.Metric, 100*maxLeave)
			default:
				result.OK = row.Target.Judge(i)
			}
		}
		d.Rows = append(d.Rows, result)
		if s.Done != nil {
			s.Done(result)
		}
	}
	return nil
}

// command measures a row again.
func (s *session) command(row Row) string {
	words := []string{"evenkeel", "bench"}
	if s.Suite != Cost {
		words = append(words, string(s.Suite))
	}
	words = append(words, "--only", row.ID, "--seed", fmt.Sprint(s.Seed))
	if s.Quick {
		words = append(words, "--quick")
	}
	if s.Control != NoControl {
		words = append(words, "--control", string(s.Control))
	}
	return strings.Join(words, " ")
}

// Exit is the exit code of a script that wants everything reached: 1 if a row is not, 2 if one is undecided.
func (d *Document) Exit() int {
	has := func(a sample.Answer) bool {
		return slices.ContainsFunc(d.Rows, func(r Result) bool { return r.OK == a })
	}
	switch {
	case has(sample.No):
		return 1
	case has(sample.Undecided):
		return 2
	}
	return 0
}
