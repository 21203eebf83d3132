// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/evenkeel/evenkeel/e2e/client/report"
)

// A server on ":8080" and a client in Java or Go have AF_INET6 sockets that carry IPv4. On one of them connect() runs
// the hook connect6 while sendto() runs sendmsg4, so each path has its spec.
var _ = Describe("An AF_INET6 socket that dials IPv4", Ordered, ContinueOnFailure, func() {
	var l *lab
	const to, shown = "10.96.0.10:7", "[::ffff:10.96.0.10]:7"

	BeforeAll(func(ctx SpecContext) {
		l = newLab(ctx, oneNode+`
  - {name: client, node: a, enrol: true}
  - {name: echo, node: a, count: 2, enrol: true, labels: {app: echo}, serve: ["tcp :9000", "udp :9001"]}
`)
		l.put("echo", documents(echoService("echo", "10.96.0.10", "fd00:96::10")))
		expectServed(ctx, l.pod("client"), to)
	})

	It("connects by TCP", func(ctx SpecContext) {
		got := attempt(ctx, l.pod("client"), "tcp", "-mapped", "-say", "ping", to)
		Expect(got).To(And(HaveField("Errno", ""), HaveField("Answer", "ping"), HaveField("Peer", shown)), "%+v", got)
	})

	It("connects by UDP and sees the service as its peer and as the source", func(ctx SpecContext) {
		got := attempt(ctx, l.pod("client"), "udp", "-mapped", "-connected", "-say", "ping", to)
		Expect(got).To(And(HaveField("Errno", ""), HaveField("Peer", shown), HaveField("From", shown)), "%+v", got)
	})

	It("sends datagrams and sees the service as the source", func(ctx SpecContext) {
		rounds := ask[report.Attempt](ctx, l.pod("client"), "udp", "-mapped", "-count=3", to)
		Expect(rounds).To(HaveLen(3))
		for _, got := range rounds {
			Expect(got).To(And(HaveField("Errno", ""), HaveField("From", shown)), "%+v", got)
		}
	})

	It("is given the endpoints that an AF_INET socket is given", func(ctx SpecContext) {
		want := []any{l.addressOf("echo-0", 4) + ":9001", l.addressOf("echo-1", 4) + ":9001"}
		got := map[string]int{}
		for _, batch := range ask[report.Draw](ctx, l.pod("client"), "draw", "-mapped", "-count=200", to) {
			for endpoint, n := range batch.Endpoints {
				got[endpoint] += n
			}
		}
		Expect(got).To(And(HaveLen(2), HaveKey(want[0]), HaveKey(want[1])))
	})

	It("is refused where an AF_INET socket is refused", func(ctx SpecContext) {
		for _, command := range []string{"tcp", "udp"} {
			got := attempt(ctx, l.pod("client"), command, "-mapped", "10.96.0.10:8")
			Expect(got.Errno).To(Equal("ECONNREFUSED"), "%s: %+v", command, got)
		}
	})
})
