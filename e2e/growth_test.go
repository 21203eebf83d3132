// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"syscall"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// Room is a flag of the agent: started with a larger one it gives more, with a smaller one less if what is there fits,
// and no connection notices.
var _ = Describe("Room", Ordered, ContinueOnFailure, func() {
	var l *lab
	const node = "a"
	flags := map[string]int{"services": 4, "endpoints": 16, "workloads": 3, "affinities": 64, "peers": 64}
	changed := func(name string, n int) []string {
		var all []string
		for _, flag := range []string{"services", "endpoints", "workloads", "affinities", "peers"} {
			if flag == name {
				flags[flag] = n
			}
			all = append(all, fmt.Sprintf("--max-%s=%d", flag, flags[flag]))
		}
		return all
	}
	// capacity is what status says of a map.
	capacity := func(ctx SpecContext, name string) int {
		GinkgoHelper()
		for _, m := range l.status(ctx, node).Maps {
			if m.Map == name {
				return m.Capacity
			}
		}
		Fail("status says nothing of map " + name)
		return 0
	}
	// more are services beyond those that there are, one endpoint each.
	more := func(n int) string {
		var list []service
		for i := range n {
			list = append(list, udpService(fmt.Sprint("extra-", i), fmt.Sprint("10.96.1.", i+1)))
		}
		return documents(list...)
	}
	many := func(n int) string {
		s := slice{name: "many", service: "many", ports: udpTarget}
		for i := range n {
			s.endpoints = append(s.endpoints, ready(fmt.Sprint("10.20.0.", i+1)))
		}
		return s.String()
	}
	// restarted starts the agent with another size while every kind of flow goes on.
	restarted := func(ctx SpecContext, name string, n int) {
		GinkgoHelper()
		running := hold(ctx, l.pod("client"), everyKind("10.96.0.10")...)
		defer running.stop()
		running.advance(ctx, 20)
		Expect(l.stopAgent(ctx, node, syscall.SIGTERM)).To(Succeed())
		running.advance(ctx, 20)
		l.startAgent(ctx, node, changed(name, n)...)
		running.advance(ctx, 20)
		running.expectUnharmed()
		Expect(l.status(ctx, node).Healthy).To(BeTrue())
	}
	// refused is an agent with a size that what is there does not fit into: it names the flag and touches nothing.
	refused := func(ctx SpecContext, name string, n int) {
		GinkgoHelper()
		was := flags[name]
		running := hold(ctx, l.pod("client"), everyKind("10.96.0.10")...)
		defer running.stop()
		Expect(l.stopAgent(ctx, node, syscall.SIGTERM)).To(Succeed())
		before, err := pinned(l.pins(node))
		Expect(err).NotTo(HaveOccurred())
		got := l.agent(ctx, node, changed(name, n)...)
		flags[name] = was
		Expect(got.code).To(Equal(1), "%+v", got)
		Expect(got.stderr).To(ContainSubstring("--max-%s was %d, is %d", name, was, n))
		after, err := pinned(l.pins(node))
		Expect(err).NotTo(HaveOccurred())
		Expect(after).To(Equal(before))
		running.advance(ctx, 20)
		running.expectUnharmed()
		l.startAgent(ctx, node, changed("", 0)...)
	}

	BeforeAll(func(ctx SpecContext) {
		l = newLab(ctx, `
  nodes:
  - {name: a, podCIDRs: [10.10.1.0/24, "fd00:10:1::/64"]}
  - {name: b, podCIDRs: [10.10.2.0/24, "fd00:10:2::/64"]}
  wires:
  - {between: [a, b]}
  agent: {enabled: true, args: [--max-services=4, --max-endpoints=16, --max-workloads=3, --max-affinities=64, --max-peers=64]}
  pods:
  - {name: client, node: a, enrol: true}
  - {name: other, node: a, count: 4}
  - {name: web, node: b, count: 2, labels: {app: web}, serve: ["http :8080", "tcp :9000", "udp :9001"]}
`)
		l.put("web", documents(webService("web", "10.96.0.10")))
		expectServed(ctx, l.pod("client"), "10.96.0.10:7")
		Expect(l.enrol(ctx, "other-0").code).To(BeZero())
		Expect(l.enrol(ctx, "other-1").code).To(BeZero())
	})

	It("for services grows, shrinks to what fits, and no further", func(ctx SpecContext) {
		Expect(capacity(ctx, "services")).To(Equal(4))
		restarted(ctx, "services", 40)
		Expect(capacity(ctx, "services")).To(Equal(40))
		l.put("extra", more(20))
		l.expectPorts(ctx, node, 23)
		restarted(ctx, "services", 30)
		Expect(capacity(ctx, "services")).To(Equal(30))
		refused(ctx, "services", 10)
		l.drop("extra")
	})

	It("for endpoints grows, shrinks to what fits, and no further", func(ctx SpecContext) {
		restarted(ctx, "endpoints", 160)
		l.put("many", documents(udpService("many", "10.96.0.20"))+"---\n"+many(100))
		Eventually(ctx, func() int {
			return len(draw(ctx, l.pod("client"), 2000, "10.96.0.20:7").endpoints)
		}).Should(Equal(100))
		restarted(ctx, "endpoints", 130)
		Expect(capacity(ctx, "endpoints")).To(Equal(130))
		refused(ctx, "endpoints", 20)
		l.drop("many")
	})

	It("for pods grows, shrinks to what fits, and no further", func(ctx SpecContext) {
		Expect(capacity(ctx, "workload_names")).To(Equal(3))
		got := l.enrol(ctx, "other-2")
		Expect(got.code).To(Equal(1), "%+v", got)
		Expect(got.stderr).To(And(ContainSubstring("default/other-2"), ContainSubstring("--max-workloads")))
		restarted(ctx, "workloads", 5)
		Expect(capacity(ctx, "workload_names")).To(Equal(5))
		for _, pod := range []string{"other-2", "other-3"} {
			Expect(l.enrol(ctx, pod).code).To(BeZero())
			Expect(draw(ctx, l.pod(pod), 10, "10.96.0.10:7").errors).To(BeEmpty())
		}
		refused(ctx, "workloads", 4)
		Expect(l.withdraw(ctx, "other-3").code).To(BeZero())
		restarted(ctx, "workloads", 4)
		Expect(l.enrol(ctx, "other-3").code).To(Equal(1), "the smaller one holds")
		Expect(l.enrol(ctx, "other-2").code).To(BeZero(), "who is in may be enrolled again")
	})

	It("for what programs remember grows and shrinks", func(ctx SpecContext) {
		for _, name := range []string{"affinities", "peers"} {
			restarted(ctx, name, 1024)
			restarted(ctx, name, 128)
		}
		Expect(capacity(ctx, "affinities")).To(Equal(128))
	})
})
