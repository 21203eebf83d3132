// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// refusals are the connections that a data plane must turn away by itself. In every lab of this file something else
// listens on the whole service range and would answer in its place.
var refusals = []struct{ why, to string }{
	{"no endpoint is ready", "10.96.0.10:7"},
	{"no endpoint is ready, IPv6", "[fd00:96::10]:7"},
	{"the service has no such port", "10.96.0.20:8"},
	{"the service has no such port, IPv6", "[fd00:96::20]:8"},
	{"Local, and no endpoint is on this node", "10.96.0.30:7"},
	{"no endpoint was ever there", "10.96.0.40:7"},
	{"the service has the port for TCP only", tcpOnly},
	{"the service has no port of TCP or UDP", "10.96.0.60:7"},
}

const tcpOnly = "10.96.0.50:7"

// prompt is how long a refusal may take. It costs microseconds; a hang costs seconds.
const prompt = 50.0

// expectRefused dials to by every kind of socket: each is refused at once, and never answered by anybody.
func expectRefused(ctx context.Context, where place, to string) {
	GinkgoHelper()
	kinds := [][]string{{"udp", "-connected"}, {"udp"}, {"udp", "-mapped"}, {"udp", "-mapped", "-connected"}}
	if to != tcpOnly {
		kinds = append(kinds, []string{"tcp"}, []string{"tcp", "-mapped"})
	}
	for _, kind := range kinds {
		got := attempt(ctx, where, append(kind, "-timeout=300ms", to)...)
		Expect(got.Errno).To(Equal("ECONNREFUSED"), "%q %+v", kind, got)
		Expect(got.Call).To(Or(Equal("connect"), Equal("sendto")), "%q %+v: refused before a packet leaves", kind, got)
		Expect(got.Took).To(BeNumerically("<", prompt), "%q %+v", kind, got)
	}
}

// newRefusalLab is two nodes on whose left one the service range is routed to a listener that takes everything.
func newRefusalLab(ctx SpecContext, binary string) *lab {
	l := newLabOf(ctx, binary, twoNodes+`
  - {name: client, node: left, enrol: true}
  - {name: plain, node: left, enrol: false}
  - {name: web, node: right, enrol: true, labels: {app: web}, serve: ["tcp :9000", "udp :9001"]}
`)
	l.put("services", documents(
		echoService("empty", "10.96.0.10", "fd00:96::10"),
		echoService("web", "10.96.0.20", "fd00:96::20"),
		service{name: "local", addresses: []string{"10.96.0.30"}, ports: echoPorts,
			more: []string{"selector: {app: web}", "internalTrafficPolicy: Local"}},
		service{name: "manual", addresses: []string{"10.96.0.40"}, ports: echoPorts},
		service{name: "tcp-only", addresses: []string{"10.96.0.50"}, ports: echoPorts[:1],
			more: []string{"selector: {app: web}"}},
		service{name: "sctp", addresses: []string{"10.96.0.60"}, ports: []string{"{name: sig, port: 7, protocol: SCTP}"},
			more: []string{"selector: {app: web}"}},
	))
	swallow(ctx, l, "left", "7", "8", "9000")
	l.expectPorts(ctx, "left", 4+4+2+2+1)
	expectServed(ctx, l.pod("client"), "10.96.0.20:7")
	return l
}

var _ = Describe("A connection that cannot be served", Ordered, ContinueOnFailure, func() {
	var l *lab
	BeforeAll(func(ctx SpecContext) { l = newRefusalLab(ctx, built.evenkeel) })

	for _, c := range refusals {
		It("is refused at once: "+c.why, func(ctx SpecContext) { expectRefused(ctx, l.pod("client"), c.to) })
	}

	It("is counted by its reason", func(ctx SpecContext) {
		before := l.counter(ctx, "left", "refused_no_port")
		attempt(ctx, l.pod("client"), "tcp", "10.96.0.20:8")
		Expect(l.counter(ctx, "left", "refused_no_port")).To(Equal(before + 1))
		before = l.counter(ctx, "left", "refused_no_endpoint")
		attempt(ctx, l.pod("client"), "tcp", "10.96.0.10:7")
		Expect(l.counter(ctx, "left", "refused_no_endpoint")).To(Equal(before + 1))
	})

	It("is named where its port is one that is not governed", func(ctx SpecContext) {
		Expect(l.status(ctx, "left").Sources).To(ContainElement(HaveField("Warnings", ContainElement(
			ContainSubstring("Service default/sctp: port 7/SCTP is left to the cluster")))))
	})

	It("would be answered by somebody else if it passed", func(ctx SpecContext) {
		for _, c := range refusals {
			got := attempt(ctx, l.pod("plain"), "udp", c.to)
			Expect(got.Answer).To(Equal("swallowed"), "a pod that is not enrolled reaches the listener: %+v", got)
		}
	})
})

var _ = Describe("The build that lets a miss pass", Ordered, ContinueOnFailure, func() {
	var l *lab
	BeforeAll(func(ctx SpecContext) { l = newRefusalLab(ctx, built.controls["miss_passes"]) })

	for _, c := range refusals {
		It("is caught: "+c.why, func(ctx SpecContext) {
			failures := InterceptGomegaFailures(func() { expectRefused(ctx, l.pod("client"), c.to) })
			Expect(failures).NotTo(BeEmpty(), "the check of %s cannot fail", c.to)
			Expect(failures[0]).To(ContainSubstring("ECONNREFUSED"))
		})
	}
})

// What is no cluster address is none of the data plane's business.
var _ = Describe("A connection that is not to a service address", Ordered, ContinueOnFailure, func() {
	var l *lab
	BeforeAll(func(ctx SpecContext) {
		l = newLab(ctx, oneNode+`
  - {name: client, node: a, enrol: true}
  - {name: echo, node: a, enrol: true, labels: {app: echo}, serve: ["tcp :9000", "udp :9001"]}
`)
		l.put("services", documents(
			service{name: "headless", ports: echoPorts, more: []string{"selector: {app: echo}"}},
			service{name: "public", addresses: []string{"10.96.0.10"},
				ports: []string{"{name: tcp, port: 7, targetPort: 9000, nodePort: 30007}"},
				more:  []string{"type: LoadBalancer", "selector: {app: echo}", "externalIPs: [203.0.113.7]"}},
		))
		l.expectPorts(ctx, "a", 1)
		swallow(ctx, l, "a", "7", "30007")
	})

	It("reaches a pod by the pod's address, as behind a headless service", func(ctx SpecContext) {
		for _, family := range []int{4, 6} {
			to := at(l.addressOf("echo", family), 9000)
			got := attempt(ctx, l.pod("client"), "tcp", "-say", "ping", to)
			Expect(got).To(And(HaveField("Answer", "ping"), HaveField("Peer", to)))
			to = at(l.addressOf("echo", family), 9001)
			got = attempt(ctx, l.pod("client"), "udp", "-say", "ping", to)
			Expect(got).To(And(HaveField("Answer", "ping"), HaveField("From", to)))
		}
	})

	It("is told what the pod says of a port that is closed", func(ctx SpecContext) {
		got := attempt(ctx, l.pod("client"), "tcp", at(l.addressOf("echo", 4), 9999))
		Expect(got.Errno).To(Equal("ECONNREFUSED"))
	})

	It("passes to a node port and to an external address untouched", func(ctx SpecContext) {
		l.route("a", "203.0.113.0/24", "198.51.100.0/24")
		for _, to := range []string{"198.51.100.1:30007", "203.0.113.7:7"} {
			got := attempt(ctx, l.pod("client"), "tcp", "-say", "ping", to)
			Expect(got).To(And(HaveField("Answer", "swallowed"), HaveField("Peer", to)), "%s is the node's own", to)
		}
		before := l.counter(ctx, "a", "passed")
		attempt(ctx, l.pod("client"), "tcp", "203.0.113.7:7")
		Expect(l.counter(ctx, "a", "passed")).To(BeNumerically(">", before))
	})
})
