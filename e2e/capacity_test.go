// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"syscall"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

var _ = Describe("Room that runs out", Ordered, ContinueOnFailure, func() {
	var l *lab
	endpoints := func(from, to int) string {
		s := slice{name: "s", service: "s", ports: udpTarget}
		for i := from; i < to; i++ {
			s.endpoints = append(s.endpoints, ready(fmt.Sprintf("10.20.0.%d", i+1)))
		}
		return s.String()
	}
	problems := func(ctx SpecContext) func() string { return func() string { return l.problems(ctx, "a") } }

	BeforeAll(func(ctx SpecContext) {
		l = newLab(ctx, `
  nodes:
  - {name: a, podCIDRs: [10.10.1.0/24, "fd00:10:1::/64"]}
  agent: {enabled: true, args: [--max-services=4, --max-endpoints=8, --max-workloads=2]}
  pods:
  - {name: client, node: a, count: 2, enrol: true}
  - {name: third, node: a}
`)
		l.put("service", documents(udpService("s", "10.96.0.10")))
		l.put("s", endpoints(0, 4))
		expectServed(ctx, l.pod("client-0"), "10.96.0.10:7")
	})

	It("is named by map, object and flag, and what was served is served: services", func(ctx SpecContext) {
		var list []service
		for i := range 6 {
			list = append(list, udpService(fmt.Sprint("extra-", i), fmt.Sprint("10.96.1.", i+1)))
		}
		l.put("extra", documents(list...))
		Eventually(ctx, problems(ctx)).Should(And(ContainSubstring("--max-services"), ContainSubstring("default/extra-"),
			ContainSubstring("service")))
		Expect(draw(ctx, l.pod("client-0"), 400, "10.96.0.10:7").endpoints).To(HaveLen(4))
		l.put("extra", documents(list[:2]...))
		Eventually(ctx, problems(ctx)).ShouldNot(ContainSubstring("default/extra-"), "what fits now is written")
	})

	It("is named by map, object and flag, and what was served is served: endpoints", func(ctx SpecContext) {
		l.put("s", endpoints(0, 30))
		Eventually(ctx, problems(ctx)).Should(And(ContainSubstring("--max-endpoints"), ContainSubstring("default/s")))
		got := draw(ctx, l.pod("client-0"), 400, "10.96.0.10:7")
		Expect(got.errors).To(BeEmpty())
		for i := range 4 {
			Expect(got.endpoints).To(HaveKey(fmt.Sprintf("10.20.0.%d:9001", i+1)))
		}
		l.put("s", endpoints(2, 8))
		Eventually(ctx, func() int { return len(draw(ctx, l.pod("client-0"), 400, "10.96.0.10:7").endpoints) }).
			Should(Equal(6), "what fits now is served")
		Expect(problems(ctx)()).NotTo(ContainSubstring("--max-endpoints"))
		l.put("s", endpoints(0, 4))
	})

	It("is named by map, object and flag, and what was served is served: workloads", func(ctx SpecContext) {
		got := l.enrol(ctx, "third")
		Expect(got.code).To(Equal(1), "%+v", got)
		Expect(got.stdout + got.stderr).To(And(ContainSubstring("--max-workloads"), ContainSubstring("default/third")))
		Expect(draw(ctx, l.pod("client-1"), 10, "10.96.0.10:7").errors).To(BeEmpty())
		Expect(l.withdraw(ctx, "client-1").code).To(BeZero())
		Expect(l.enrol(ctx, "third").code).To(BeZero(), "there is room again")
	})

	It("is given by a restart with a larger flag, while what is served is served", func(ctx SpecContext) {
		Expect(l.stopAgent(ctx, "a", syscall.SIGTERM)).To(Succeed())
		got := l.agent(ctx, "a", "--on-start=adopt", "--max-services=100")
		Expect(got.code).To(Equal(1))
		Expect(got.stderr).To(And(ContainSubstring("--max-services was 4, is 100"),
			ContainSubstring("evenkeel upgrade apply --max-")))
		Expect(draw(ctx, l.pod("client-0"), 10, "10.96.0.10:7").errors).To(BeEmpty())
		got = l.evenkeel(ctx, "a", "upgrade", "apply", "--max-services=100")
		Expect(got.code).To(BeZero(), "%+v", got)
		Expect(draw(ctx, l.pod("client-0"), 10, "10.96.0.10:7").errors).To(BeEmpty())
	})
})
