// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/evenkeel/evenkeel/e2e/client/report"
)

var _ = Describe("UDP", Ordered, ContinueOnFailure, func() {
	var l *lab
	const one, two, both = "10.96.0.10:7", "10.96.0.20:7", "10.96.0.30:7"

	// only makes the service both have these endpoints.
	only := func(pods ...string) {
		s := slice{name: "both", service: "both", ports: udpTarget}
		for _, pod := range pods {
			s.endpoints = append(s.endpoints, ready(l.addressOf(pod, 4)))
		}
		l.put("both", s.String())
	}
	// serving counts the endpoints that new sockets are given.
	serving := func(ctx SpecContext) int { return len(draw(ctx, l.pod("other"), 200, both).endpoints) }

	BeforeAll(func(ctx SpecContext) {
		l = newLab(ctx, oneNode+`
  - {name: client, node: a, enrol: true}
  - {name: other, node: a, enrol: true}
  - {name: echo-one, node: a, enrol: true, labels: {app: one}, serve: ["tcp :9000", "udp :9001"]}
  - {name: echo-two, node: a, enrol: true, labels: {app: two}, serve: ["tcp :9000", "udp :9001"]}
`)
		l.put("services", documents(
			echoService("one", "10.96.0.10", "fd00:96::10"),
			echoService("two", "10.96.0.20", "fd00:96::20"),
			service{name: "both", addresses: []string{"10.96.0.30"}, ports: udpPorts}))
		l.expectPorts(ctx, "a", 4+4+1)
	})

	BeforeEach(func(ctx SpecContext) {
		only("echo-one", "echo-two")
		Eventually(ctx, func() int { return serving(ctx) }).Should(Equal(2), "both endpoints are served")
	})

	DescribeTable("shows each answer as coming from the service that was asked", func(ctx SpecContext, args ...string) {
		attempts := ask[report.Attempt](ctx, l.pod("client"), append([]string{"udp", "-count=5"}, args...)...)
		Expect(attempts).To(HaveLen(10))
		for _, got := range attempts {
			Expect(got.Errno).To(BeEmpty(), "%+v", got)
			Expect(got.From).To(Equal(got.To), "%+v", got)
		}
	},
		Entry("connected, IPv4", "-connected", one, two),
		Entry("connected, IPv6", "-connected", "[fd00:96::10]:7", "[fd00:96::20]:7"),
		Entry("two services from one unconnected socket, IPv4", one, two),
		Entry("two services from one unconnected socket, IPv6", "[fd00:96::10]:7", "[fd00:96::20]:7"),
	)

	DescribeTable("answers connected sockets that name the service in each datagram", func(ctx SpecContext, shown string, args ...string) {
		args = append([]string{"udp", "-connected", "-named", "-count=2"}, args...)
		for range 10 { // sockets; that a choice of their own is always right has a chance of 2^-20
			args = append(args, both)
		}
		attempts := ask[report.Attempt](ctx, l.pod("client"), args...)
		Expect(attempts).To(HaveLen(20))
		for _, got := range attempts {
			Expect(got.Errno).To(BeEmpty(), "%+v", got)
			Expect(got).To(And(HaveField("From", shown), HaveField("Peer", shown)))
		}
	},
		Entry("IPv4", both),
		Entry("IPv4 through AF_INET6", "[::ffff:10.96.0.30]:7", "-mapped"),
	)

	It("stays on one endpoint of a service while that is ready, and moves when it is gone", func(ctx SpecContext) {
		client := start[report.Attempt](ctx, l.pod("client"), "udp", "-stdin", "-say", "who? me", both)
		servers := map[string]int{}
		round := func() string {
			before := len(client.seen())
			client.say("again")
			Eventually(ctx, func() int { return len(client.seen()) }).Should(Equal(before+1), "the round is made")
			got := client.seen()[before]
			Expect(got.Errno).To(BeEmpty(), "%+v", got)
			Expect(got.From).To(Equal(both), "%+v", got)
			return podIn(got.Answer)
		}
		for range 50 { // that a fresh choice each time hides as one has a chance of 2^-49
			servers[round()]++
		}
		Expect(servers).To(HaveLen(1), "one socket, one endpoint: %v", servers)
		for first := range servers {
			second := map[string]string{"echo-one": "echo-two", "echo-two": "echo-one"}[first]
			Expect(second).NotTo(BeEmpty(), "the server says its name: %v", servers)
			only(second)
			Eventually(ctx, round).Should(Equal(second), "its endpoint is gone")
			only("echo-one", "echo-two")
			Eventually(ctx, func() int { return serving(ctx) }).Should(Equal(2), "both are served again")
			for range 50 {
				Expect(round()).To(Equal(second), "the one that it moved to is ready, so there is no reason to go back")
			}
		}
	})

	It("ends connected sockets whose endpoint is gone within a second, and no others", func(ctx SpecContext) {
		const sockets = 20
		untouched := hold(ctx, l.pod("other"), "udp="+one, "udp="+two, "udp-free="+one)
		var args []string
		for range sockets {
			args = append(args, "udp="+both)
		}
		clients := hold(ctx, l.pod("client"), args...)
		Expect(clients.events("failed")).To(BeEmpty())
		removed := monotonic()
		only("echo-two")
		Eventually(ctx, func() int { return len(clients.events("failed")) }).Should(BeNumerically(">", 0),
			"some of %d sockets were on echo-one; that none was has a chance of 2^-%d", sockets, sockets)
		Eventually(ctx, func() []string { return l.peers(ctx, "a", "default/client") }).
			ShouldNot(ContainElement(l.addressOf("echo-one", 4)+":9001"), "no socket of the pod is connected to the endpoint")
		clients.stop()
		ended := 0
		for _, flow := range clients.events("end") {
			if flow.Failed == 0 {
				continue
			}
			ended++
			// Whoever waits for an answer hears ECONNABORTED; whoever sends first finds a socket without a peer.
			Expect(flow.Error).To(Or(ContainSubstring("software caused connection abort"),
				ContainSubstring("destination address required")))
			Expect(time.Duration(flow.At-removed)).To(BeNumerically("<", time.Second), "it took that long to hear of it")
		}
		Expect(ended).To(BeNumerically("<", sockets), "those on echo-two go on; that none was has a chance of 2^-%d", sockets)
		untouched.expectUnharmed()
		counted := l.counter(ctx, "a", "destroyed")
		Expect(counted).To(BeNumerically(">=", ended), "each is counted")
	})

	It("wakes whoever waits for an answer of an endpoint that goes", func(ctx SpecContext) {
		only("echo-one")
		Eventually(ctx, func() int { return serving(ctx) }).Should(Equal(1), "one endpoint is left")
		waiting := start[report.Attempt](ctx, l.pod("client"), "udp", "-connected", "-wait", both)
		Eventually(ctx, waiting.seen).Should(HaveLen(1), "it was answered once, and waits")
		only("echo-two")
		Eventually(ctx, waiting.seen).WithTimeout(time.Second).Should(HaveLen(2), "it is woken within a second")
		Expect(waiting.stop()[1]).To(And(HaveField("Call", "recvfrom"), HaveField("Errno", "ECONNABORTED")))
	})

	It("refuses a datagram to a service without endpoints", func(ctx SpecContext) {
		only()
		Eventually(ctx, func() string { return attempt(ctx, l.pod("client"), "udp", both).Errno }).
			Should(Equal("ECONNREFUSED"), "sendto() says so at once")
	})
})

// podIn returns the pod that an answer names.
func podIn(answer string) string {
	for _, pod := range []string{"echo-one", "echo-two"} {
		if strings.Contains(answer, pod) {
			return pod
		}
	}
	return fmt.Sprintf("none in %q", answer)
}
