// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/bench/sample"
)

// arm is one variant of what is compared.
type arm struct {
	name string
	// block runs it once and returns what it measured, by metric, and what CPU time its processes used since it was
	// called last.
	block func(context.Context) (map[string]float64, time.Duration, error)
}

// The arms. Plain is what ratios are to; Again is the same in other pods.
const (
	Plain   = "no mesh"
	Again   = "no mesh again"
	Mesh    = "evenkeel"
	Checked = "evenkeel, source check"
	NAT     = "nftables NAT"
	// Proxies in user space: that of netsim/ambient with and without TLS, and a real ztunnel.
	Ambient   = "ambient"
	Plaintext = "ambient, plaintext"
	Ztunnel   = "ztunnel"
)

// rotation returns the order of n arms in a round: rotated by one each round, and reversed every other cycle, so that
// each arm is at each place equally often and follows each other one.
func rotation(n, round int) []int {
	order := make([]int, n)
	for i := range order {
		order[i] = (i + round) % n
	}
	if round/n%2 == 1 {
		slices.Reverse(order)
	}
	return order
}

// plan says how often arms are run.
type plan struct {
	rounds int
	// turns is how often each arm is run in a round, 0 for once.
	turns int
	// undisturbed rounds are wanted: those in which others used the machine are made again.
	undisturbed bool
}

// count runs a number of rounds of what others on the machine have no part in: memory, wake-ups.
func (s *session) count(ctx context.Context, trial string, arms []arm, rounds int) (Series, error) {
	return s.run(ctx, trial, arms, plan{rounds: rounds})
}

// time runs a number of rounds that nobody disturbed.
func (s *session) time(ctx context.Context, trial string, arms []arm, rounds int) (Series, error) {
	return s.run(ctx, trial, arms, plan{rounds: rounds, undisturbed: true})
}

// run runs rounds. Those that were disturbed are made again, which costs patience; once that has run out there are at most
// as many in all as were asked for. If not even half of those were undisturbed, all are returned, and why they are not
// to be trusted.
func (s *session) run(ctx context.Context, trial string, arms []arm, p plan) (Series, error) {
	series := Series{Trial: trial, Values: map[string]map[string][]float64{}}
	for _, a := range arms {
		series.Arms = append(series.Arms, a.name)
	}
	var good, bad []map[string]map[string]float64 // rounds: arm -> metric -> value
	why := ""
	for round := 0; len(good) < p.rounds && (round < p.rounds || s.patience > 0); round++ {
		s.progress(trial, len(good), p.rounds)
		begin := time.Now()
		results, disturbed, err := s.round(ctx, arms, round, max(p.turns, 1))
		switch {
		case err != nil:
			return series, err
		case disturbed != "" && p.undisturbed:
			bad, why = append(bad, results), disturbed
			s.patience -= time.Since(begin)
			if err := s.awaitQuiet(ctx, trial); err != nil {
				return series, err
			}
		default:
			good = append(good, results)
		}
	}
	series.Void = len(bad)
	if len(good) < (p.rounds+1)/2 {
		series.Disturbed = fmt.Sprintf("only %d of %d rounds were undisturbed: in the last one that was not %s; "+
			"run it while the machine is idle", len(good), len(good)+len(bad), why)
		good = append(good, bad...)
	}
	for _, results := range good {
		for arm, metrics := range results {
			for metric, value := range metrics {
				series.add(metric, arm, value)
			}
		}
	}
	return series, nil
}

// round runs each arm as often as there are turns. It says why the round is worth nothing, if it is.
func (s *session) round(ctx context.Context, arms []arm, number, turns int) (map[string]map[string]float64, string, error) {
	took := make([]map[string][]float64, len(arms)) // by arm and metric, a value per turn
	for i := range took {
		took[i] = map[string][]float64{}
	}
	var ours time.Duration
	before, err := s.usage()
	if err != nil {
		return nil, "", err
	}
	for turn := range turns {
		for _, i := range rotation(len(arms), number*turns+turn) {
			if err := ctx.Err(); err != nil {
				return nil, "", err
			}
			metrics, used, err := arms[i].block(ctx)
			if err != nil {
				return nil, "", fmt.Errorf("%s: %w", arms[i].name, err)
			}
			for metric, value := range metrics {
				took[i][metric] = append(took[i][metric], value)
			}
			ours += used
		}
	}
	after, err := s.usage()
	if err != nil {
		return nil, "", err
	}
	return together(arms, took), after.disturbed(before, ours), nil
}

// together makes one value of those of the turns of a round. How fast the machine is changes from one moment to the next,
// often by a fifth, and more between the first turn and the last than between two that follow each other: so an arm's
// value is that of no mesh times the median of its ratios to no mesh in the same turn.
func together(arms []arm, took []map[string][]float64) map[string]map[string]float64 {
	plain := slices.IndexFunc(arms, func(a arm) bool { return a.name == Plain })
	results := map[string]map[string]float64{}
	for i, a := range arms {
		results[a.name] = map[string]float64{}
		for metric, values := range took[i] {
			if i == plain || plain < 0 || len(values) == 1 {
				results[a.name][metric] = sample.Middle(values)
				continue
			}
			base := took[plain][metric]
			results[a.name][metric] = sample.Middle(base) * sample.Middle(sample.Ratios(values, base))
		}
	}
	return results
}

func (s *Series) add(metric, arm string, value float64) {
	if s.Values[metric] == nil {
		s.Values[metric] = map[string][]float64{}
	}
	s.Values[metric][arm] = append(s.Values[metric][arm], value)
}

// of returns what an arm has measured, a number per round.
func (s *Series) of(metric, arm string) []float64 { return s.Values[metric][arm] }

// maxLeave is how far the interval of no mesh against itself may leave 1.
const maxLeave = 0.02

// gates compare no mesh with itself, in every metric of a series.
func (s *Series) gates(seed uint64) []Gate {
	var gates []Gate
	for _, metric := range slices.Sorted(maps.Keys(s.Values)) {
		if len(s.of(metric, Plain)) == 0 || len(s.of(metric, Again)) == 0 {
			continue
		}
		i := sample.Median(sample.Ratios(s.of(metric, Again), s.of(metric, Plain)), seed)
		gates = append(gates, Gate{
			Trial: s.Trial, Metric: metric, Rows: []string{}, Value: i.Value, Low: i.Low, High: i.High,
			OK: i.Low >= 1-maxLeave && i.High <= 1+maxLeave,
		})
	}
	return gates
}
