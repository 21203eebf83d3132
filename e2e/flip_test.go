// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// exercise is what `upgrade exercise` prints.
type exercise struct {
	Flips    int                          `json:"flips"`
	Moved    uint64                       `json:"moved"`
	Connects map[string]uint64            `json:"connects"`
	Counters map[string]map[string]uint64 `json:"counters"`
}

// newFlipLab is two nodes of which left has no agent, so that its pinned state can be exercised.
func newFlipLab(ctx SpecContext, binary string) *lab {
	l := newLabOf(ctx, binary, twoNodes+`
  - {name: client, node: left, enrol: true}
  - {name: web, node: right, count: 2, enrol: true, labels: {app: web}, serve: ["http :8080", "tcp :9000", "udp :9001"]}
`)
	l.put("web", documents(webService("web", "10.96.0.10", "fd00:96::10")))
	l.expectPorts(ctx, "left", 6)
	expectServed(ctx, l.pod("client"), "10.96.0.10:7")
	Expect(l.stopAgent(ctx, "left", syscall.SIGTERM)).To(Succeed())
	return l
}

// datagrams are the flows of which a program sees every packet, and new connections.
func datagrams(address string) []string {
	return []string{"udp-free=" + at(address, 7), "udp-new=" + at(address, 7), "tcp-new=" + at(address, 7)}
}

// events is how much the programs of both generations saw.
func (x exercise) events() (sum uint64) {
	for _, counters := range x.Counters {
		for _, name := range []string{"connect", "send", "passed", "established", "accepted", "inbound", "messages", "closed"} {
			sum += counters[name]
		}
	}
	return sum
}

// expectFlipsUnnoticed serves by one generation and by another in turn under running flows, so often and at such intervals.
func expectFlipsUnnoticed(ctx SpecContext, l *lab, flips int, interval time.Duration) exercise {
	GinkgoHelper()
	flows := hold(ctx, l.pod("client"), append([]string{"-interval=500us"},
		append(everyKind("10.96.0.10"), everyKind("fd00:96::10")...)...)...)
	got := l.evenkeel(ctx, "left", "upgrade", "exercise", fmt.Sprint("--flips=", flips), fmt.Sprint("--interval=", interval), "-o=json")
	var told exercise
	Expect(json.Unmarshal([]byte(got.stdout), &told)).To(Succeed(), "%+v", got)
	flows.expectUnharmed()
	Expect(told.Flips).To(Equal(flips))
	Expect(told.Connects).To(HaveLen(2), "%+v", told)
	for generation, connects := range told.Connects {
		Expect(connects).To(BeNumerically(">", 100), "generation %s was given connections", generation)
	}
	Expect(told.Moved).To(BeZero(), "no connection was seen by two generations: %+v", told)
	Expect(got.code).To(BeZero(), "%+v", got)
	return told
}

var _ = Describe("A thousand changes of the generation that serves", func() {
	It("move no connection and fail none", func(ctx SpecContext) {
		expectFlipsUnnoticed(ctx, newFlipLab(ctx, built.evenkeel), 1000, 2*time.Millisecond)
	})

	It("are no more noticed when they are a million", Label("tier:nightly"), func(ctx SpecContext) {
		told := expectFlipsUnnoticed(ctx, newFlipLab(ctx, built.evenkeel), 1_000_000, 0)
		AddReportEntry("events", told.events())
	}, SpecTimeout(8*time.Minute))

	It("move none of a million events at 1 kHz", Label("tier:nightly"), func(ctx SpecContext) {
		l := newFlipLab(ctx, built.evenkeel)
		more := hold(ctx, l.pod("client"), append([]string{"-interval=50us"},
			append(datagrams("10.96.0.10"), datagrams("fd00:96::10")...)...)...)
		told := expectFlipsUnnoticed(ctx, l, 165_000, time.Millisecond)
		more.expectUnharmed()
		AddReportEntry("events", told.events())
		Expect(told.events()).To(BeNumerically(">=", 1_000_000), "in %d changes", told.Flips)
	}, SpecTimeout(8*time.Minute))

	It("are caught moving connections by the build that ignores the stamp", func(ctx SpecContext) {
		l := newFlipLab(ctx, built.controls["ignore_stamp"])
		failures := InterceptGomegaFailures(func() { expectFlipsUnnoticed(ctx, l, 1000, 2*time.Millisecond) })
		Expect(failures).To(ContainElement(ContainSubstring("seen by two generations")), "the check cannot fail")
	})
})
