// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/evenkeel/evenkeel/e2e/client/report"
)

const servicesTopology = `
  nodes:
  - {name: left, podCIDRs: [10.10.1.0/24, "fd00:10:1::/64"]}
  - {name: right, podCIDRs: [10.10.2.0/24, "fd00:10:2::/64"]}
  wires:
  - {between: [left, right]}
  agent: {enabled: true}
  pods:
  - {name: client, node: left, enrol: true}
  - {name: near, node: left, enrol: true, labels: {app: near, tier: web},
     serve: ["http :8080", "tcp :9000", "udp :9001"], ports: [{name: http, containerPort: 8080}]}
  - {name: far, node: right, enrol: true, labels: {app: far, tier: web},
     serve: ["http :8081", "tcp :9000", "udp :9001"], ports: [{name: http, containerPort: 8081}]}
`

var _ = Describe("A service", Ordered, ContinueOnFailure, func() {
	const vip4, vip6 = "10.96.0.10", "fd00:96::10"
	var l *lab

	BeforeAll(func(ctx SpecContext) {
		ports := []string{"{name: http, port: 80, targetPort: http}", "{name: tcp, port: 7, targetPort: 9000}",
			"{name: udp, port: 7, targetPort: 9001, protocol: UDP}"}
		var many []string
		for i := range 64 {
			many = append(many, fmt.Sprintf("{name: p%d, port: %d, targetPort: 9000}", i, 1000+i))
		}
		l = newLab(ctx, servicesTopology)
		l.put("services", documents(
			service{name: "near", addresses: []string{vip4, vip6}, ports: ports, more: []string{"selector: {app: near}"}},
			service{name: "far", addresses: []string{"10.96.0.20", "fd00:96::20"}, ports: ports,
				more: []string{"selector: {app: far}"}},
			service{name: "web", addresses: []string{"10.96.0.30"}, ports: ports[:1], more: []string{"selector: {tier: web}"}},
			service{name: "many", addresses: []string{"10.96.0.40"}, ports: many, more: []string{"selector: {app: far}"}},
			service{name: "manual", addresses: []string{"10.96.0.50"}, ports: ports[1:2]},
			service{name: "crowd", addresses: []string{"10.96.0.60"}, ports: ports[2:]},
		))
		l.expectPorts(ctx, "left", 2*3+2*3+1+64+1+1)
	})

	DescribeTable("is reached by its address", func(ctx SpecContext, protocol, to, server string) {
		switch protocol {
		case "tcp":
			got := attempt(ctx, l.pod("client"), "tcp", "-say", "ping", to)
			Expect(got.Errno).To(BeEmpty(), "%+v", got)
			Expect(got.Answer).To(Equal("ping"))
			Expect(got.Peer).To(Equal(to), "getpeername shows what was dialled")
		case "udp":
			for _, flag := range []string{"-connected=true", "-connected=false"} {
				got := attempt(ctx, l.pod("client"), "udp", flag, "-say", "ping", to)
				Expect(got.Errno).To(BeEmpty(), "%+v", got)
				Expect(got.Answer).To(Equal("ping"))
				Expect(got.From).To(Equal(to), "the answer comes from what was dialled")
			}
		case "http":
			flow := hold(ctx, l.pod("client"), "http="+to).expectUnharmed()
			Expect(flow[0].Servers).To(HaveKey(ContainSubstring(server)))
		}
	},
		Entry("TCP, IPv4, same node", "tcp", at(vip4, 7), "near"),
		Entry("TCP, IPv6, same node", "tcp", at(vip6, 7), "near"),
		Entry("TCP, IPv4, other node", "tcp", "10.96.0.20:7", "far"),
		Entry("TCP, IPv6, other node", "tcp", "[fd00:96::20]:7", "far"),
		Entry("UDP, IPv4, same node", "udp", at(vip4, 7), "near"),
		Entry("UDP, IPv6, same node", "udp", at(vip6, 7), "near"),
		Entry("UDP, IPv4, other node", "udp", "10.96.0.20:7", "far"),
		Entry("UDP, IPv6, other node", "udp", "[fd00:96::20]:7", "far"),
		Entry("HTTP, IPv4, same node", "http", at(vip4, 80), "near"),
		Entry("HTTP, IPv6, same node", "http", at(vip6, 80), "near"),
		Entry("HTTP, IPv4, other node", "http", "10.96.0.20:80", "far"),
		Entry("HTTP, IPv6, other node", "http", "[fd00:96::20]:80", "far"),
	)

	It("resolves a named target port in each pod by itself", func(ctx SpecContext) {
		// near listens on 8080 and far on 8081: one number for both would fail on one of them.
		answered := map[string]int{}
		for range 40 { // that both are met has a chance of 1 - 2^-39
			got := attempt(ctx, l.pod("client"), "tcp", "-say", "GET / HTTP/1.0\r\n\r\n", "10.96.0.30:80")
			Expect(got.Errno).To(BeEmpty(), "%+v", got)
			for _, name := range []string{"near", "far"} {
				if strings.Contains(got.Answer, name) {
					answered[name]++
				}
			}
		}
		Expect(answered).To(HaveLen(2), "both pods answered: %v", answered)
	})

	It("has as many ports as it lists", func(ctx SpecContext) {
		args := []string{"tcp", "-say", "ping"}
		for i := range 64 {
			args = append(args, at("10.96.0.40", 1000+i))
		}
		attempts := ask[report.Attempt](ctx, l.pod("client"), append(args, "10.96.0.40:1064")...)
		Expect(attempts).To(HaveLen(65))
		for _, got := range attempts[:64] {
			Expect(got.Errno).To(BeEmpty(), "%+v", got)
			Expect(got.Peer).To(Equal(got.To))
		}
		Expect(attempts[64].Errno).To(Equal("ECONNREFUSED"), "the 65th port is not there")
	})

	It("takes its endpoints from an EndpointSlice where it has no selector", func(ctx SpecContext) {
		Expect(attempt(ctx, l.pod("client"), "tcp", "10.96.0.50:7").Errno).To(Equal("ECONNREFUSED"))
		l.put("manual", slice{name: "manual", service: "manual", ports: []string{"{name: tcp, port: 9000}"},
			endpoints: []string{ready(l.addressOf("far", 4))}}.String())
		Eventually(ctx, func() string {
			return attempt(ctx, l.pod("client"), "tcp", "-say", "ping", "10.96.0.50:7").Answer
		}).Should(Equal("ping"), "the slice is served")
	})

	It("spreads over 5,000 endpoints", func(ctx SpecContext) {
		const endpoints, perSlice = 5000, 100
		var slices []slice
		for i := range endpoints / perSlice {
			s := slice{name: fmt.Sprint("crowd-", i), service: "crowd", ports: udpTarget}
			for j := range perSlice {
				s.endpoints = append(s.endpoints, ready(fmt.Sprintf("10.20.%d.%d", i, j+1)))
			}
			slices = append(slices, s)
		}
		l.put("crowd", documents(slices...))
		Eventually(ctx, func() int {
			return len(draw(ctx, l.pod("client"), 2000, "10.96.0.60:7").endpoints)
		}).Should(BeNumerically(">", 1500), "2,000 draws of 5,000 meet some 1,650 different ones")
		got := draw(ctx, l.pod("client"), 100_000, "10.96.0.60:7")
		// Each is expected 20 times; that one of 5,000 is missed has a chance of 5000 e^-20, 1 in 97,000.
		Expect(got.endpoints).To(HaveLen(endpoints))
		Expect(got.errors).To(BeEmpty())
	})

	DescribeTable("is what getpeername and recvfrom show",
		func(ctx SpecContext, flag, to, want string) {
			tcp := attempt(ctx, l.pod("client"), "tcp", flag, to)
			Expect(tcp.Errno).To(BeEmpty())
			Expect(tcp.Peer).To(Equal(want))
			udp := attempt(ctx, l.pod("client"), "udp", "-connected", flag, to)
			Expect(udp.Errno).To(BeEmpty())
			Expect(udp.Peer).To(Equal(want))
			Expect(udp.From).To(Equal(want))
		},
		Entry("IPv4", "-mapped=false", at(vip4, 7), at(vip4, 7)),
		Entry("IPv6", "-mapped=false", at(vip6, 7), at(vip6, 7)),
		Entry("IPv4 on an AF_INET6 socket", "-mapped=true", at(vip4, 7), mapped(vip4, 7)),
	)

	It("shows a server the client's own address", func(ctx SpecContext) {
		answer := attempt(ctx, l.pod("client"), "tcp", "-say", "GET / HTTP/1.0\r\n\r\n", "10.96.0.20:80").Answer
		Expect(answer).To(ContainSubstring(l.addressOf("client", 4)), "no address was translated on the way")
	})
})
