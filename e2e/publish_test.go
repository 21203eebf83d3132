// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"math/rand/v2"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/e2e/client/report"
)

// interval is a span of CLOCK_MONOTONIC.
type interval struct{ from, to int64 }

// absences are the spans in which an endpoint was certainly not served: from when its removal was seen to be applied,
// until the change that brought it back was begun.
type absences map[string][]interval

func (a absences) overlap(endpoint string, batch report.Draw) bool {
	for _, span := range a[endpoint] {
		if batch.Start > span.from && batch.End < span.to {
			return true
		}
	}
	return false
}

var _ = Describe("Endpoints that come and go", Ordered, func() {
	var l *lab
	const endpoints, to = 16, "10.96.0.10:7"
	endpoint := func(i int) string { return fmt.Sprintf("10.20.0.%d:9001", i+1) }

	BeforeAll(func(ctx SpecContext) {
		l = newLab(ctx, twoNodes+`
  - {name: client, node: left, count: 2, enrol: true}
`)
	})

	It("are never chosen after they are gone, and none is refused while one is there", func(ctx SpecContext) {
		random := rand.New(rand.NewPCG(uint64(GinkgoRandomSeed()), 1))
		publish := func(present uint32) {
			s := slice{name: "s", service: "s", ports: udpTarget}
			for i := range endpoints {
				if present>>i&1 == 1 {
					s.endpoints = append(s.endpoints, ready(fmt.Sprintf("10.20.0.%d", i+1)))
				}
			}
			l.put("s", s.String())
		}
		l.put("service", documents(udpService("s", "10.96.0.10")))
		publish(1<<endpoints - 1)
		expectServed(ctx, l.pod("client-0"), to)
		clients := []*running[report.Draw]{
			start[report.Draw](ctx, l.pod("client-0"), "draw", "-count=0", "-batch=20", to),
			start[report.Draw](ctx, l.pod("client-1"), "draw", "-count=0", "-batch=20", to),
		}
		gone, since := absences{}, map[string]int64{}
		for range 150 {
			present := random.Uint32N(1<<endpoints-1) + 1 // at least one
			begun := monotonic()
			for i := range endpoints {
				if from, absent := since[endpoint(i)]; absent && present>>i&1 == 1 {
					gone[endpoint(i)] = append(gone[endpoint(i)], interval{from, begun})
					delete(since, endpoint(i))
				}
			}
			publish(present)
			Eventually(ctx, func() map[string]bool { return l.served(ctx, "left", "default/s") }).
				WithPolling(time.Millisecond).Should(Equal(setOf(present, endpoint)), "the change is applied")
			applied := monotonic()
			for i := range endpoints {
				if _, absent := since[endpoint(i)]; !absent && present>>i&1 == 0 {
					since[endpoint(i)] = applied
				}
			}
		}
		connects, checked := 0, 0
		for _, client := range clients {
			for _, batch := range client.stop() {
				Expect(batch.Errors).To(BeEmpty(), "at least one endpoint was always there")
				for endpoint, n := range batch.Endpoints {
					connects += n
					Expect(gone.overlap(endpoint, batch)).To(BeFalse(), "%s was chosen %d times while it was gone", endpoint, n)
				}
				for endpoint := range gone {
					if gone.overlap(endpoint, batch) {
						checked++
					}
				}
			}
		}
		AddReportEntry("connects under churn", connects)
		Expect(connects).To(BeNumerically(">", 10_000), "there was load")
		Expect(checked).To(BeNumerically(">", 1000), "batches fell into absences, so the check could have failed")
	})
})

// monotonic returns CLOCK_MONOTONIC in nanoseconds, as the client tool does.
func monotonic() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err) // the clock is always there
	}
	return ts.Nano()
}

// setOf returns the endpoints of a bit mask.
func setOf(present uint32, endpoint func(int) string) map[string]bool {
	set := map[string]bool{}
	for i := range 32 {
		if present>>i&1 == 1 {
			set[endpoint(i)] = true
		}
	}
	return set
}
