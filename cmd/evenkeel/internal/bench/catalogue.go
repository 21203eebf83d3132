// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/bench/load"
	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/bench/sample"
)

// Row is one figure that is to be reached.
type Row struct {
	ID, Unit string
	// What is measured, for people.
	What   string
	Target sample.Target
	// Variant is the ID of the row that this one measures under other conditions, empty if it is one itself. Variants
	// are measured when they are named.
	Variant string

	// metric is what it is read from, whose gate it depends on; samples reads a value per round.
	metric  string
	samples func(*Series) []float64
}

// trial measures some rows at once.
type trial struct {
	name string
	rows []Row
	run  func(ctx context.Context, s *session, name string) (Series, error)
}

// Suite is what is measured in one run.
type Suite string

// The suites, named as the command is.
const (
	Cost    Suite = ""        // what the mesh costs
	Upgrade Suite = "upgrade" // what it costs to replace it while it carries traffic
)

func (s Suite) catalogue() []trial {
	if s == Upgrade {
		return upgrades()
	}
	return catalogue()
}

// Rows returns every row and variant of a suite, in the order that they are measured.
func (s Suite) Rows() []Row {
	var rows []Row
	for _, t := range s.catalogue() {
		rows = append(rows, t.rows...)
	}
	return rows
}

// levels are the numbers of connections under way.
var levels = []int{1, 8, 32, 128}

func catalogue() []trial {
	var trials []trial
	for _, v := range variants() {
		trials = append(trials, established(v))
	}
	trials = append(trials, connectCost())
	for _, c := range levels {
		for _, v := range variants() {
			trials = append(trials, connectRate(c, v))
		}
	}
	return slices.Concat(trials, peers(), []trial{programTime()}, changes(), syncs(), memories(), []trial{idle()})
}

// variants returns the plain form first.
func variants() []variant {
	return []variant{
		{}, {bbr: true}, {twoCores: true}, {twoCores: true, bbr: true}, {fortio: true}, {twoCores: true, fortio: true},
	}
}

// ratio compares an arm with another.
func ratio(metric, arm, to string) func(*Series) []float64 {
	return func(s *Series) []float64 { return sample.Ratios(s.of(metric, arm), s.of(metric, to)) }
}

func variantOf(id string, v variant) string {
	if v == (variant{}) {
		return ""
	}
	return id
}

func established(v variant) trial {
	t := trial{name: "established" + v.suffix()}
	for _, r := range []struct {
		id, metric, arm, what string
		bound                 float64
	}{
		{"established-p50-source-off", metricMedian, Mesh, "median latency of a request", 1.01},
		{"established-p50-source-on", metricMedian, Checked, "median latency of a request, sources checked", 1.03},
		{"established-cpu-source-off", metricCPU, Mesh, "CPU time of a request", 1.01},
		{"established-cpu-source-on", metricCPU, Checked, "CPU time of a request, sources checked", 1.03},
	} {
		t.rows = append(t.rows, Row{
			ID: r.id + v.suffix(), Unit: unitRatio, What: r.what + " on an established connection, to no mesh" + v.about(),
			Target: sample.Target{Relation: sample.AtMost, Bound: r.bound}, Variant: variantOf(r.id, v),
			metric: r.metric, samples: ratio(r.metric, r.arm, Plain),
		})
	}
	b := load.Block{Kind: load.Request}
	if v.fortio {
		b.Kind = load.HTTPKeep
	}
	t.run = func(ctx context.Context, s *session, name string) (Series, error) {
		return s.traffic(ctx, name, v, b)
	}
	return t
}

func connectRate(connections int, v variant) trial {
	t := trial{name: fmt.Sprintf("connect-rate-c%d%s", connections, v.suffix())}
	about := fmt.Sprintf(", %d at a time%s", connections, v.about())
	for _, r := range []struct {
		id, arm, to, what string
		target            sample.Target
		variant           bool
	}{
		{"connect-rate-c%d", Mesh, Plain, "new connections for one request each, to no mesh",
			sample.Target{Relation: sample.AtLeast, Bound: 0.98}, false},
		{"nat-rate-c%d", Mesh, NAT, "new connections for one request each, to nftables NAT",
			sample.Target{Relation: sample.Above, Bound: 1}, false},
		{"connect-rate-c%d-source-on", Checked, Plain, "new connections for one request each, sources checked, to no mesh",
			sample.Target{Relation: sample.AtLeast, Bound: 0.98}, true},
		{"nat-rate-c%d-source-on", Checked, NAT, "new connections for one request each, sources checked, to nftables NAT",
			sample.Target{Relation: sample.Above, Bound: 1}, true},
	} {
		id := fmt.Sprintf(r.id, connections)
		row := Row{
			ID: id + v.suffix(), Unit: unitRatio, What: r.what + about, Target: r.target, Variant: variantOf(id, v),
			metric: metricRate, samples: ratio(metricRate, r.arm, r.to),
		}
		if r.variant {
			row.Variant = strings.TrimSuffix(id, "-source-on")
		}
		t.rows = append(t.rows, row)
	}
	b := load.Block{Kind: load.Connect, Connections: connections}
	if v.fortio {
		b.Kind = load.HTTPNew
	}
	t.run = func(ctx context.Context, s *session, name string) (Series, error) {
		return s.traffic(ctx, name, v, b, NAT)
	}
	return t
}

// peers compare the mesh with proxies in user space, which need a core of their own beside the one that client and
// server have.
func peers() []trial {
	var trials []trial
	for _, p := range []struct{ name, arm string }{
		{"ambient", Ambient}, {"ambient-plaintext", Plaintext}, {"ztunnel", Ztunnel},
	} {
		t := trial{name: "established-" + p.name, run: func(ctx context.Context, s *session, name string) (Series, error) {
			return s.traffic(ctx, name, variant{}, load.Block{Kind: load.Request}, p.arm)
		}}
		for _, r := range []struct{ id, metric, what string }{
			{"established-p50", metricMedian, "median latency of a request"},
			{"established-cpu", metricCPU, "CPU time of a request"},
		} {
			t.rows = append(t.rows, Row{ID: r.id + "-" + p.name, Unit: unitRatio, Variant: r.id + "-source-off",
				What:   r.what + " on an established connection, evenkeel to " + p.arm,
				Target: sample.Target{Relation: sample.AtMost, Bound: 1}, metric: r.metric, samples: ratio(r.metric, Mesh, p.arm)})
		}
		trials = append(trials, t)
		for _, connections := range []int{1, 32} {
			id := fmt.Sprintf("connect-rate-c%d", connections)
			trials = append(trials, trial{name: id + "-" + p.name, rows: []Row{{ID: id + "-" + p.name, Unit: unitRatio,
				Variant: id, What: fmt.Sprintf("new connections for one request each, %d at a time, evenkeel to %s", connections, p.arm),
				Target: sample.Target{Relation: sample.Above, Bound: 1}, metric: metricRate,
				samples: ratio(metricRate, Mesh, p.arm)}},
				run: func(ctx context.Context, s *session, name string) (Series, error) {
					return s.traffic(ctx, name, variant{}, load.Block{Kind: load.Connect, Connections: connections}, p.arm)
				}})
		}
	}
	return trials
}

func connectCost() trial {
	t := trial{name: "connect-ns"}
	for _, r := range []struct {
		id, metric, what string
		bound            float64
	}{
		{"connect-ns", metricFresh, "added to connect() of a fresh socket, one of 10,000 services of 10 endpoints", 1200},
		{"connect-ns-without-storage", metricAgain, "the same where the socket has its state already", 200},
	} {
		t.rows = append(t.rows, Row{
			ID: r.id, Unit: "ns", What: r.what, Target: sample.Target{Relation: sample.AtMost, Bound: r.bound},
			metric: r.metric,
			samples: func(s *Series) []float64 {
				return sample.Differences(s.of(r.metric, Mesh), s.of(r.metric, Plain))
			},
		})
	}
	t.run = func(ctx context.Context, s *session, name string) (Series, error) { return s.connectCost(ctx, name) }
	return t
}

// direct reads what an arm has measured.
func direct(metric, arm string) func(*Series) []float64 {
	return func(s *Series) []float64 { return s.of(metric, arm) }
}

// figureOf is a row that is read directly.
func figureOf(id, unit, what, metric string, bound float64) Row {
	return Row{
		ID: id, Unit: unit, What: what, Target: sample.Target{Relation: sample.AtMost, Bound: bound},
		metric: metric, samples: direct(metric, Mesh),
	}
}

func programTime() trial {
	row := figureOf("bpf-ns", "ns",
		"BPF time per new connection at both ends, storage included, what counting takes left out", metricBPF, 2500)
	source := row
	source.ID, source.Variant, source.What = "bpf-ns-source-on", "bpf-ns", row.What+", sources checked"
	source.samples = direct(metricBPF, Checked)
	return trial{name: "bpf-ns", rows: []Row{row, source},
		run: func(ctx context.Context, s *session, name string) (Series, error) { return s.programTime(ctx, name) }}
}

func changes() []trial {
	var trials []trial
	for _, c := range []struct {
		name string
		of   Scale
		what string
		rows []Row
	}{
		{"change-100", Scale{1, 100}, "100 endpoints in all", []Row{
			figureOf("change-p50-100", "ms", "median", metricP50, 0.1),
			figureOf("change-p99-100", "ms", "99th percentile", metricP99, 1),
		}},
		{"change-100k", Scale{1000, 100}, "100 of 100,000 endpoints", []Row{
			figureOf("change-p50-100k", "ms", "median", metricP50, 0.1),
			figureOf("change-p99-100k", "ms", "99th percentile", metricP99, 1),
		}},
		{"change-5000", Scale{1, 5000}, "5,000 endpoints", []Row{
			figureOf("change-5000", "ms", "99th percentile", metricP99, 2),
		}},
	} {
		t := trial{name: c.name, run: func(ctx context.Context, s *session, name string) (Series, error) {
			return s.change(ctx, name, c.of)
		}}
		for _, r := range c.rows {
			r.What = fmt.Sprintf("one endpoint replaced, decoded to seen by connect(), %s; service of %s", r.What, c.what)
			t.rows = append(t.rows, r)
		}
		trials = append(trials, t)
	}
	return trials
}

// large is the scale of full syncs and restarts.
var large = Scale{10_000, 10}

func syncs() []trial {
	return []trial{
		{
			name: "sync-memory",
			rows: []Row{figureOf("sync-memory", "s", "full sync of 10,000 services of 10 endpoints, from decoded objects",
				metricSeconds, 0.5)},
			run: func(ctx context.Context, s *session, name string) (Series, error) {
				return s.sync(ctx, name, name, large)
			},
		},
		{
			name: "sync-yaml",
			rows: []Row{figureOf("sync-yaml", "s", "full sync of 10,000 services of 10 endpoints, from YAML", metricSeconds, 3)},
			run: func(ctx context.Context, s *session, name string) (Series, error) {
				return s.sync(ctx, name, name, large)
			},
		},
		{
			name: "restart",
			rows: []Row{figureOf("restart", "s", "restart with 100,000 endpoints of which none has changed, without a map write",
				metricSeconds, 0.4)},
			run: func(ctx context.Context, s *session, name string) (Series, error) { return s.restart(ctx, name, large) },
		},
	}
}

func memories() []trial {
	memory := func(name string, of Scale, rows []Row, args ...string) trial {
		return trial{name: name, rows: rows, run: func(ctx context.Context, s *session, name string) (Series, error) {
			return s.memory(ctx, name, of, len(rows) == 1, args...)
		}}
	}
	return []trial{
		memory("agent-100", Scale{100, 10}, []Row{
			figureOf("maps-100", "MiB", "BPF maps with room for 100 services of 10 endpoints, filled", metricMaps, 1),
		}, "--max-services=100", "--max-endpoints=1000", "--max-workloads=100", "--max-affinities=1000", "--max-peers=1000"),
		memory("agent-10k", Scale{1000, 10}, []Row{
			figureOf("maps-10k", "MiB", "BPF maps with room for 1,000 services of 10 endpoints, filled", metricMaps, 3),
			figureOf("pss-10k", "MiB", "agent, proportional set size with 10,000 endpoints", metricPSS, 28),
		}, "--max-services=1000", "--max-endpoints=10000", "--max-workloads=500", "--max-affinities=4096",
			"--max-peers=4096"),
		memory("agent-100k", large, []Row{
			figureOf("maps-100k", "MiB", "BPF maps with room for 10,000 services of 10 endpoints, filled", metricMaps, 16),
			figureOf("pss-100k", "MiB", "agent, proportional set size with 100,000 endpoints", metricPSS, 64),
		}, "--max-services=10000", "--max-endpoints=100000"),
	}
}

func idle() trial {
	return trial{
		name: "idle",
		rows: []Row{
			figureOf("idle-cpu", "%", "agent with 10,000 endpoints under traffic, nothing changes, of one core", metricIdleCPU, 0.1),
			figureOf("idle-wakeups", "1", "the same, wake-ups per connection, beyond those without traffic", metricWakeups, 0.001),
		},
		run: func(ctx context.Context, s *session, name string) (Series, error) {
			return s.idle(ctx, name, Scale{1000, 10})
		},
	}
}

// choose returns the trials that are to run, each with the rows that are asked for: those that only names, which may
// have * and ? in them; all, or all but variants, if it names none.
func choose(trials []trial, only []string, all bool) ([]trial, error) {
	used := make([]bool, len(only))
	var chosen []trial
	for _, t := range trials {
		var rows []Row
		for _, r := range t.rows {
			wanted := len(only) == 0 && (all || r.Variant == "")
			for i, pattern := range only {
				match, err := path.Match(pattern, r.ID)
				if err != nil {
					return nil, &SelectionError{Pattern: pattern}
				}
				if match {
					wanted, used[i] = true, true
				}
			}
			if wanted {
				rows = append(rows, r)
			}
		}
		if len(rows) > 0 {
			t.rows = rows
			chosen = append(chosen, t)
		}
	}
	if i := slices.Index(used, false); i >= 0 {
		return nil, &SelectionError{Pattern: only[i]}
	}
	return chosen, nil
}

// SelectionError is a name that no row has.
type SelectionError struct{ Pattern string }

func (e *SelectionError) Error() string {
	return fmt.Sprintf("no row has the id %q: --list names them all", e.Pattern)
}
