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

// Rows returns every row and variant, in the order that they are measured.
func Rows() []Row {
	var rows []Row
	for _, t := range catalogue() {
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
	return trials
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
		{"established-p50-source-off", metricMedian, mesh, "median latency of a request", 1.01},
		{"established-p50-source-on", metricMedian, checked, "median latency of a request, sources checked", 1.03},
		{"established-cpu-source-off", metricCPU, mesh, "CPU time of a request", 1.01},
		{"established-cpu-source-on", metricCPU, checked, "CPU time of a request, sources checked", 1.03},
	} {
		t.rows = append(t.rows, Row{
			ID: r.id + v.suffix(), Unit: "ratio", What: r.what + " on an established connection, to no mesh" + v.about(),
			Target: sample.Target{Relation: sample.AtMost, Bound: r.bound}, Variant: variantOf(r.id, v),
			metric: r.metric, samples: ratio(r.metric, r.arm, plain),
		})
	}
	b := load.Block{Kind: load.Request}
	if v.fortio {
		b.Kind = load.HTTPKeep
	}
	t.run = func(ctx context.Context, s *session, name string) (Series, error) {
		return s.traffic(ctx, name, v, b, false)
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
		{"connect-rate-c%d", mesh, plain, "new connections for one request each, to no mesh",
			sample.Target{Relation: sample.AtLeast, Bound: 0.98}, false},
		{"nat-rate-c%d", mesh, nat, "new connections for one request each, to nftables NAT",
			sample.Target{Relation: sample.Above, Bound: 1}, false},
		{"connect-rate-c%d-source-on", checked, plain, "new connections for one request each, sources checked, to no mesh",
			sample.Target{Relation: sample.AtLeast, Bound: 0.98}, true},
		{"nat-rate-c%d-source-on", checked, nat, "new connections for one request each, sources checked, to nftables NAT",
			sample.Target{Relation: sample.Above, Bound: 1}, true},
	} {
		id := fmt.Sprintf(r.id, connections)
		row := Row{
			ID: id + v.suffix(), Unit: "ratio", What: r.what + about, Target: r.target, Variant: variantOf(id, v),
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
		return s.traffic(ctx, name, v, b, true)
	}
	return t
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
				return sample.Differences(s.of(r.metric, mesh), s.of(r.metric, plain))
			},
		})
	}
	t.run = func(ctx context.Context, s *session, name string) (Series, error) { return s.connectCost(ctx, name) }
	return t
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
