// SPDX-License-Identifier: Apache-2.0

package netsim

import (
	"fmt"
	"testing"
	"time"
)

// BenchmarkLab makes and removes labs of pods without processes, and reports seconds for each way.
func BenchmarkLab(b *testing.B) {
	needRoot(b)
	for _, pods := range []int{200, 1000} {
		b.Run(fmt.Sprint(pods), func(b *testing.B) {
			var up, down time.Duration
			for b.Loop() {
				topology := mustParse(b, labName(), fmt.Sprintf(`
  nodes:
  - {name: a, podCIDRs: [10.10.0.0/20, "fd00:10:1::/64"]}
  - {name: b, podCIDRs: [10.20.0.0/20, "fd00:10:2::/64"]}
  wires: [{between: [a, b]}]
  pods:
  - {name: a, node: a, count: %d}
  - {name: b, node: b, count: %d}
`, pods/2, pods/2))
				start := time.Now()
				l, err := Up(b.Context(), topology, testOptions(b))
				if err != nil {
					b.Fatal(err)
				}
				up += time.Since(start)
				start = time.Now()
				if err := l.Down(b.Context()); err != nil {
					b.Fatal(err)
				}
				down += time.Since(start)
			}
			b.ReportMetric(up.Seconds()/float64(b.N), "s/up")
			b.ReportMetric(down.Seconds()/float64(b.N), "s/down")
		})
	}
}
