// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"syscall"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// exercise is what `upgrade exercise` prints.
type exercise struct {
	Flips    int               `json:"flips"`
	Moved    uint64            `json:"moved"`
	Connects map[string]uint64 `json:"connects"`
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

// expectFlipsUnnoticed serves by one generation and by another in turn, a thousand times, under running flows.
func expectFlipsUnnoticed(ctx SpecContext, l *lab) {
	GinkgoHelper()
	flows := hold(ctx, l.pod("client"), append([]string{"-interval=500us"},
		append(everyKind("10.96.0.10"), everyKind("fd00:96::10")...)...)...)
	got := l.evenkeel(ctx, "left", "upgrade", "exercise", "--flips=1000", "--interval=2ms", "-o=json")
	var told exercise
	Expect(json.Unmarshal([]byte(got.stdout), &told)).To(Succeed(), "%+v", got)
	flows.expectUnharmed()
	Expect(told.Flips).To(Equal(1000))
	Expect(told.Connects).To(HaveLen(2), "%+v", told)
	for generation, connects := range told.Connects {
		Expect(connects).To(BeNumerically(">", 100), "generation %s was given connections", generation)
	}
	Expect(told.Moved).To(BeZero(), "no connection was seen by two generations: %+v", told)
	Expect(got.code).To(BeZero(), "%+v", got)
}

var _ = Describe("A thousand changes of the generation that serves", func() {
	It("move no connection and fail none", func(ctx SpecContext) {
		expectFlipsUnnoticed(ctx, newFlipLab(ctx, built.evenkeel))
	})

	It("are caught moving connections by the build that ignores the stamp", func(ctx SpecContext) {
		l := newFlipLab(ctx, built.controls["ignore_stamp"])
		failures := InterceptGomegaFailures(func() { expectFlipsUnnoticed(ctx, l) })
		Expect(failures).To(ContainElement(ContainSubstring("seen by two generations")), "the check cannot fail")
	})
})
