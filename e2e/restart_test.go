// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/types"
)

// everyKind are flows of each kind to a service of echo and http ports.
func everyKind(address string) []string {
	var kinds []string
	for _, kind := range []string{"tcp", "udp", "udp-free", "tcp-new", "udp-new"} {
		kinds = append(kinds, kind+"="+at(address, 7))
	}
	return append(kinds, "http="+at(address, 80), "http-new="+at(address, 80))
}

var _ = Describe("The agent", Ordered, func() {
	var l *lab
	const agentNode = "left"

	BeforeAll(func(ctx SpecContext) {
		l = newLab(ctx, twoNodes+`
  - {name: client, node: left, enrol: true}
  - {name: web, node: right, count: 2, enrol: true, labels: {app: web}, serve: ["http :8080", "tcp :9000", "udp :9001"]}
  - {name: more, node: left, enrol: true, labels: {app: more}, serve: ["http :8080", "tcp :9000", "udp :9001"]}
`)
		l.put("web", documents(webService("web", "10.96.0.10", "fd00:96::10")))
		l.expectPorts(ctx, agentNode, 6)
		expectServed(ctx, l.pod("client"), "10.96.0.10:7")
	})

	// inventory is everything pinned by the node's agent: path and object, which a restart keeps one by one.
	inventory := func() map[string]object {
		GinkgoHelper()
		pins, err := pinned(l.pins(agentNode))
		Expect(err).NotTo(HaveOccurred())
		Expect(len(pins)).To(BeNumerically(">", 50), "the walk sees the pins")
		return pins
	}

	survived := func(ctx SpecContext, signal syscall.Signal, end types.GomegaMatcher) {
		before := inventory()
		running := hold(ctx, l.pod("client"), append(everyKind("10.96.0.10"), everyKind("fd00:96::10")...)...)
		for range 3 {
			Expect(l.stopAgent(ctx, agentNode, signal)).To(end)
			running.advance(ctx, 20) // while it is down
			l.startAgent(ctx, agentNode)
			running.advance(ctx, 20)
		}
		running.expectUnharmed()
		Expect(inventory()).To(Equal(before), "the same programs, maps, links and pins")
		Expect(l.writes(ctx, agentNode)).To(BeZero(), "nothing changed, so it wrote nothing")
	}

	DescribeTable("leaves connections and new ones alone when it", survived,
		Entry("gets SIGTERM", syscall.SIGTERM, Succeed()),
		Entry("gets SIGINT", syscall.SIGINT, Succeed()),
		Entry("gets SIGKILL", syscall.SIGKILL, Not(Succeed())),
	)

	It("refuses a second one by the first one's pid", func(ctx SpecContext) {
		got := l.agent(ctx, agentNode)
		Expect(got.code).To(Equal(1))
		Expect(got.stderr).To(ContainSubstring(fmt.Sprint(l.agentPID(agentNode))))
		Expect(got.stderr).To(ContainSubstring("--take-over"), "it says what to do")
	})

	It("takes over from one that hangs", func(ctx SpecContext) {
		running := hold(ctx, l.pod("client"), everyKind("10.96.0.10")...)
		before := inventory()
		hung := l.agentPID(agentNode)
		Expect(syscall.Kill(hung, syscall.SIGSTOP)).To(Succeed())
		next := l.agentCommand(ctx, agentNode, "--take-over")
		Expect(next.Start()).To(Succeed())
		Expect(l.WaitAgent(ctx, agentNode)).NotTo(Succeed(), "the one that hung is dead")
		Eventually(ctx, func() bool { return l.status(ctx, agentNode).Healthy }).Should(BeTrue(), "the next one is ready")
		running.advance(ctx, 20)
		Expect(next.Process.Signal(syscall.SIGTERM)).To(Succeed())
		Expect(next.Wait()).To(Succeed())
		running.advance(ctx, 20)
		running.expectUnharmed()
		Expect(inventory()).To(Equal(before))
		l.startAgent(ctx, agentNode)
	})

	It("is not killed for one that could not go on from what is pinned", func(ctx SpecContext) {
		// A build with another digest can load nothing anew that is gone, once what it was loaded from is gone, too.
		other := *l
		other.binary = built.controls["miss_passes"] // a constant of its object is another
		for _, lost := range []string{"progs/publish", "progs/destroy_udp"} {
			for _, pin := range []string{lost, "release"} {
				Expect(os.Remove(filepath.Join(l.pins(agentNode), "gen/1", pin))).To(Succeed())
			}
			pid := l.agentPID(agentNode)
			got := other.agent(ctx, agentNode, "--take-over")
			Expect(got.code).To(Equal(1), "%+v", got)
			Expect(got.stderr).To(ContainSubstring("gen/1/"+lost), "it is named")
			Expect(l.agentPID(agentNode)).To(Equal(pid), "the one that runs lives")
			Expect(draw(ctx, l.pod("client"), 10, "10.96.0.10:7").total()).To(Equal(10))
			Expect(l.stopAgent(ctx, agentNode, syscall.SIGTERM)).To(Succeed())
			l.startAgent(ctx, agentNode)
			Expect(l.status(ctx, agentNode).Healthy).To(BeTrue(), "its own build can")
		}
	})

	It("catches up with what changed while it was dead", func(ctx SpecContext) {
		Expect(l.stopAgent(ctx, agentNode, syscall.SIGKILL)).NotTo(Succeed())
		l.put("more", documents(webService("more", "10.96.0.20")))
		l.put("web", documents(webService("web", "10.96.0.30")))
		Expect(draw(ctx, l.pod("client"), 10, "10.96.0.10:7").total()).To(Equal(10), "what was served is served")
		Expect(draw(ctx, l.pod("client"), 10, "10.96.0.20:7").endpoints).To(Equal(map[string]int{"10.96.0.20:7": 10}),
			"and what was not is not")
		l.startAgent(ctx, agentNode)
		Expect(draw(ctx, l.pod("client"), 10, "10.96.0.20:7").endpoints).To(HaveKey(l.addressOf("more", 4) + ":9001"))
		Expect(draw(ctx, l.pod("client"), 10, "10.96.0.30:7").total()).To(Equal(10))
		Eventually(ctx, func() map[string]int { return draw(ctx, l.pod("client"), 10, "10.96.0.10:7").endpoints }).
			Should(Equal(map[string]int{"10.96.0.10:7": 10}), "an address that is no service's any more passes")
		l.put("web", documents(webService("web", "10.96.0.10", "fd00:96::10")))
		l.drop("more")
		expectServed(ctx, l.pod("client"), "10.96.0.10:7")
	})

	It("keeps what was served when it starts with a broken manifest", func(ctx SpecContext) {
		running := hold(ctx, l.pod("client"), everyKind("10.96.0.10")...)
		Expect(l.stopAgent(ctx, agentNode, syscall.SIGTERM)).To(Succeed())
		l.put("broken", "apiVersion: v1\nkind: Service\nmetadata: {name: broken\n")
		DeferCleanup(func() { l.drop("broken") })
		done := l.startAgentLater(ctx, agentNode)
		Eventually(ctx, func() string { return l.evenkeel(ctx, agentNode, "status").stdout }).
			Should(ContainSubstring("broken.yaml:3"), "the status names the line")
		running.advance(ctx, 20)
		l.drop("broken")
		Eventually(ctx, done).Should(Receive(Succeed()), "it is ready once it can read its source")
		running.expectUnharmed()
	})

	It("starts where its directories were cleaned", func(ctx SpecContext) {
		Expect(l.stopAgent(ctx, agentNode, syscall.SIGTERM)).To(Succeed())
		Expect(os.RemoveAll(filepath.Dir(l.admin(agentNode)))).To(Succeed())
		l.startAgent(ctx, agentNode)
	})
})
