// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"syscall"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/evenkeel/evenkeel/e2e/client/report"
	"github.com/evenkeel/evenkeel/netsim"
	"github.com/evenkeel/evenkeel/netsim/ambient"
)

// peerTopology has pods whose connections a proxy holds, and one, outside, that it knows nothing of.
func peerTopology(args string) string {
	return `
  dataplane: ambient
  nodes:
  - {name: left, podCIDRs: [10.10.1.0/24, "fd00:10:1::/64"]}
  - {name: right, podCIDRs: [10.10.2.0/24, "fd00:10:2::/64"]}
  wires:
  - {between: [left, right]}
  agent: {enabled: true, args: [` + args + `]}
  pods:
  - {name: client, node: left, enrol: true}
  - {name: near, node: left, enrol: true, labels: {app: near}, serve: ["http :8080", "tcp :9000", "udp :9001"]}
  - {name: far, node: right, enrol: true, labels: {app: far}, serve: ["http :8080", "tcp :9000", "udp :9001"]}
  - {name: outside, node: right, labels: {app: outside}, serve: ["http :8080", "tcp :9000"]}
  - {name: host, node: left, hostNetwork: true, enrol: true}
---
` + documents(webService("near", "10.96.0.10", "fd00:96::10"), webService("far", "10.96.0.20", "fd00:96::20"),
		webService("outside", "10.96.0.30"), webService("nobody", "10.96.0.40"))
}

var _ = Describe("The user-space peer", Ordered, ContinueOnFailure, func() {
	var l *lab
	BeforeAll(func(ctx SpecContext) { l = newLab(ctx, peerTopology("--drain=100ms")) })

	DescribeTable("carries TCP", func(ctx SpecContext, to string) {
		got := attempt(ctx, l.pod("client"), "tcp", "-say", "ping", to)
		Expect(got.Errno).To(BeEmpty(), "%+v", got)
		Expect(got.Answer).To(Equal("ping"))
		Expect(got.Peer).To(Equal(to), "getpeername shows what was dialled")
	},
		Entry("to a service of the same node", "10.96.0.10:7"),
		Entry("to a service of the same node, IPv6", "[fd00:96::10]:7"),
		Entry("to a service of the other node", "10.96.0.20:7"),
		Entry("to a service of the other node, IPv6", "[fd00:96::20]:7"),
		Entry("to a pod", "10.10.2.2:9000"),
		Entry("to a service outside", "10.96.0.30:7"))

	It("carries HTTP, and the server sees the client's address", func(ctx SpecContext) {
		for _, service := range []string{"http://10.96.0.10/", "http://10.96.0.20/", "http://[fd00:96::20]/"} {
			answers := ask[report.Response](ctx, l.pod("client"), "get", service)
			Expect(answers).To(HaveLen(1))
			var seen struct{ Remote string }
			Expect(json.Unmarshal([]byte(answers[0].Body), &seen)).To(Succeed())
			family := 4
			if strings.Contains(service, "[") {
				family = 6
			}
			Expect(seen.Remote).To(ContainSubstring(l.addressOf("client", family)), "%s", service)
		}
		hold(ctx, l.pod("client"), "http=10.96.0.10:80", "http=10.96.0.20:80", "tcp=10.96.0.20:7").expectUnharmed()
	})

	It("takes connections from pods outside the mesh", func(ctx SpecContext) {
		Expect(answerOf(ctx, l.pod("outside"), at(l.addressOf("far", 4), 9000))).To(Equal("ping"))
		Expect(answerOf(ctx, l.pod("outside"), at(l.addressOf("near", 6), 9000))).To(Equal("ping"))
	})

	It("ends connections to a service without endpoints", func(ctx SpecContext) {
		Expect(answerOf(ctx, l.pod("client"), "10.96.0.40:7")).NotTo(Equal("ping"))
	})

	It("leaves UDP alone", func(ctx SpecContext) {
		got := attempt(ctx, l.pod("client"), "udp", "-say", "ping", at(l.addressOf("far", 4), 9001))
		Expect(got.Answer).To(Equal("ping"), "%+v", got)
	})

	It("is shown, and so is who is not in it", func(ctx SpecContext) {
		got := sim(ctx, "inspect", "-o", "json", l.name)
		var info netsim.Info
		Expect(json.Unmarshal([]byte(got.stdout), &info)).To(Succeed(), "%+v", got)
		Expect(info.Dataplane).To(Equal(netsim.Ambient))
		Expect(l.pod("client").Enrolled).To(BeTrue())
		Expect(l.pod("outside").Enrolled).To(BeFalse())
		Expect(l.pod("host").Refusal).To(ContainSubstring("hostNetwork"))
	})

	It("lets nobody read what goes from node to node", func(ctx SpecContext) {
		found := onTheWire(ctx, l)
		Expect(found.Packets).To(BeNumerically(">", 10), "%+v", found)
		Expect(found.Found).To(BeZero(), "%+v", found)
	})

	It("can be read without TLS: the capture would find it", Label("control"), func(ctx SpecContext) {
		found := onTheWire(ctx, newLab(ctx, peerTopology("--plaintext")))
		Expect(found.Found).To(BeNumerically(">=", 2), "%+v", found)
	})

	It("refuses a node of another authority", func(ctx SpecContext) {
		dir := filepath.Join(l.dir(), "authority")
		own, err := ambient.ReadAuthority(dir)
		Expect(err).NotTo(HaveOccurred())
		other, err := ambient.NewAuthority()
		Expect(err).NotTo(HaveOccurred())
		Expect(other.Write(dir)).To(Succeed())
		Expect(l.RestartAgent(ctx, "right")).To(Succeed())
		Expect(answerOf(ctx, l.pod("client"), "10.96.0.20:7")).NotTo(Equal("ping"))
		Expect(answerOf(ctx, l.pod("client"), "10.96.0.10:7")).To(Equal("ping"), "its own node is as before")
		Expect(own.Write(dir)).To(Succeed())
		Expect(l.RestartAgent(ctx, "right")).To(Succeed())
		Expect(answerOf(ctx, l.pod("client"), "10.96.0.20:7")).To(Equal("ping"))
	})

	It("refuses connections while it is dead", func(ctx SpecContext) {
		held := hold(ctx, l.pod("client"), "tcp=10.96.0.10:7")
		_ = l.stopAgent(ctx, "left", syscall.SIGKILL) // it was killed
		Eventually(ctx, func() []report.Flow { return held.events("failed") }).ShouldNot(BeEmpty(), "it breaks what it held")
		held.stop()
		got := attempt(ctx, l.pod("client"), "tcp", "-say", "ping", "10.96.0.10:7")
		Expect(got.Errno).To(Equal("ECONNREFUSED"), "%+v", got)
		l.startAgent(ctx, "left")
		Expect(answerOf(ctx, l.pod("client"), "10.96.0.10:7")).To(Equal("ping"))
	})

	It("follows a changed topology", func(ctx SpecContext) {
		spec := strings.Replace(peerTopology("--drain=100ms"), "  - {name: outside", "  - {name: late, node: right, enrol: true, "+
			"labels: {app: nobody}, serve: [\"tcp :9000\", \"http :8080\"]}\n  - {name: outside", 1)
		changed, err := netsim.Parse(strings.NewReader(topology(l.name, spec)), l.name)
		Expect(err).NotTo(HaveOccurred())
		_, err = l.Apply(ctx, changed)
		Expect(err).NotTo(HaveOccurred())
		Expect(answerOf(ctx, l.pod("client"), "10.96.0.40:7")).To(Equal("ping"), "the new pod is an endpoint")
		Expect(answerOf(ctx, l.pod("late"), "10.96.0.10:7")).To(Equal("ping"), "and a client")
		changed.Dataplane = netsim.Evenkeel
		_, err = l.Apply(ctx, changed)
		Expect(err).To(MatchError(ContainSubstring("take the lab down first")))
	})

	It("comes up again with its node", func(ctx SpecContext) {
		for _, order := range netsim.BootOrders() {
			Expect(l.Reboot(ctx, "right", order)).To(Succeed())
			Expect(answerOf(ctx, l.pod("client"), "10.96.0.20:7")).To(Equal("ping"), "after %v", order)
			Expect(answerOf(ctx, l.pod("far"), "10.96.0.10:7")).To(Equal("ping"), "after %v", order)
		}
	})
})

// onTheWire says what a capture between the nodes saw of a secret that went from left to right and back.
func onTheWire(ctx SpecContext, l *lab) report.Capture {
	GinkgoHelper()
	const secret = "what-nobody-else-may-read"
	capture := start[report.Capture](ctx, l.Node("left"), "capture", "-text", secret, "wire0")
	Eventually(ctx, capture.seen).ShouldNot(BeEmpty(), "the capture has begun")
	got := attempt(ctx, l.pod("client"), "tcp", "-say", secret, "10.96.0.20:7")
	Expect(got.Answer).To(Equal(secret), "%+v", got)
	seen := capture.stop()
	Expect(seen).To(HaveLen(2))
	return seen[1]
}
