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
	// block runs it once and returns what it measured, by metric, and what CPU time its processes used.
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

// count runs a number of rounds of what others on the machine have no part in: memory, wake-ups.
func (s *session) count(ctx context.Context, trial string, arms []arm, rounds int) (Series, error) {
	return s.rounds(ctx, trial, arms, rounds, false)
}

// time runs a number of rounds that nobody disturbed, and at most twice as many once patience has run out. If not even
// half of them were undisturbed, all are returned, and why they are not to be trusted.
func (s *session) time(ctx context.Context, trial string, arms []arm, rounds int) (Series, error) {
	return s.rounds(ctx, trial, arms, rounds, true)
}

func (s *session) rounds(ctx context.Context, trial string, arms []arm, want int, undisturbed bool) (Series, error) {
	series := Series{Trial: trial, Values: map[string]map[string][]float64{}}
	for _, a := range arms {
		series.Arms = append(series.Arms, a.name)
	}
	var good, bad []map[string]map[string]float64 // rounds: arm -> metric -> value
	why := ""
	for round := 0; len(good) < want && (round < 2*want || s.patience > 0); round++ {
		s.progress(trial, len(good), want)
		results, disturbed, err := s.round(ctx, arms, round)
		switch {
		case err != nil:
			return series, err
		case disturbed != "" && undisturbed:
			bad, why = append(bad, results), disturbed
			if err := s.awaitQuiet(ctx, trial); err != nil {
				return series, err
			}
		default:
			good = append(good, results)
		}
	}
	series.Void = len(bad)
	if len(good) < (want+1)/2 {
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

// round runs each arm once. It says why the round is worth nothing, if it is.
func (s *session) round(ctx context.Context, arms []arm, number int) (map[string]map[string]float64, string, error) {
	results := map[string]map[string]float64{}
	var ours time.Duration
	before, err := readUsage()
	if err != nil {
		return nil, "", err
	}
	for _, i := range rotation(len(arms), number) {
		if err := ctx.Err(); err != nil {
			return nil, "", err
		}
		metrics, used, err := arms[i].block(ctx)
		if err != nil {
			return nil, "", fmt.Errorf("%s: %w", arms[i].name, err)
		}
		results[arms[i].name] = metrics
		ours += used
	}
	after, err := readUsage()
	if err != nil {
		return nil, "", err
	}
	return results, after.disturbed(before, ours), nil
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
