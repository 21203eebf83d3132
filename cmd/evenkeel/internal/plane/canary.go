// SPDX-License-Identifier: Apache-2.0

package plane

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/evenkeel/evenkeel/bpf"
	"github.com/evenkeel/evenkeel/upgrade"
)

// Canary tries a release in steps that are held for a while, by what its connections come to: errors of connect(),
// resets, each reason of a refusal, and how long handshakes take.
func Canary(steps []uint16, hold time.Duration) *upgrade.Canary {
	const few = 20 // connections that say nothing yet
	c := &upgrade.Canary{Steps: steps, Hold: hold, Count: func(g *upgrade.Generation) (map[string]uint64, error) {
		m := g.Maps[bpf.MeshMapCounters]
		if m == nil {
			return nil, fmt.Errorf("generation %d has no counters", g.Number)
		}
		return Counters(m)
	}}
	c.Rules = []upgrade.Rule{
		{Name: "connect errors", Bad: []string{"failed"}, Of: []string{"established", "failed"}, Worse: 1.5, By: 0.01, Least: few},
		{Name: "resets", Bad: []string{"reset"}, Of: []string{"established"}, Worse: 1.5, By: 0.02, Least: few},
		{Name: "handshake time", Bad: []string{"handshake_ns"}, Of: []string{"established"}, Worse: 2, By: 1e6, Least: few,
			Unit: "ns"},
	}
	refusals := slices.DeleteFunc(slices.Clone(countNames[:]), func(n string) bool { return !strings.HasPrefix(n, "refused_") })
	all := append([]string{"connect", "send", "passed"}, refusals...)
	for _, reason := range refusals {
		c.Rules = append(c.Rules, upgrade.Rule{
			Name: "drops (" + reason + ")", Bad: []string{reason}, Of: all, Worse: 1.5, By: 0.01, Least: few,
		})
	}
	return c
}
