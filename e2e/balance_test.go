// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// weightCases are services wN at 10.96.1.N+1 of endpoints with these weights. Shares are exact: the sum of each,
// divided by what they have in common, is within the 32,768 slots that one service may take of the default
// --max-endpoints.
var weightCases = [][]int{
	{1, 1}, {1, 99}, {3, 2, 1}, {0, 1, 2}, {9973, 10007, 12011}, {9999, 1}, {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1},
}

func weightService(i int) (name, address string) {
	return fmt.Sprint("w", i), fmt.Sprint("10.96.1.", i+1)
}

// weightedDocuments are the services of weightCases and pods behind them, all on the other node.
func weightedDocuments() string {
	var text string
	for i, weights := range weightCases {
		name, address := weightService(i)
		text += documents(udpService(name, address, fmt.Sprintf("selector: {app: %s}", name)))
		for j, weight := range weights {
			text += documents(backend{name: fmt.Sprintf("%s-%d", name, j), app: name, node: "right",
				address: fmt.Sprintf("10.10.2.%d", 10+i*20+j),
				meta:    fmt.Sprintf("annotations: {evenkeel.io/weight: %q}", fmt.Sprint(weight))})
		}
	}
	return text
}

func weightShares(i int) shares {
	want := shares{}
	for j, weight := range weightCases[i] {
		want[fmt.Sprintf("10.10.2.%d:9001", 10+i*20+j)] = float64(weight)
	}
	return want
}

const balanceClients = `
  - {name: client, node: left, enrol: true}
  - {name: other, node: right, enrol: true}
`

var _ = Describe("Endpoints by weight", Ordered, ContinueOnFailure, func() {
	var l *lab
	BeforeAll(func(ctx SpecContext) {
		l = newLab(ctx, twoNodes+balanceClients)
		l.put("weights", weightedDocuments())
		l.expectPorts(ctx, "left", len(weightCases))
		_, last := weightService(len(weightCases) - 1)
		expectServed(ctx, l.pod("client"), last+":7")
	})

	for i, weights := range weightCases {
		_, address := weightService(i)
		It(fmt.Sprint("are chosen as ", weights), func(ctx SpecContext) {
			expectShares(ctx, l.pod("client"), address+":7", weightShares(i))
		})
	}

	It("follow a weight that changes", func(ctx SpecContext) {
		_, address := weightService(2)
		l.put("fourth", documents(backend{name: "w2-3", app: "w2", node: "right", address: "10.10.2.99",
			meta: `annotations: {evenkeel.io/weight: "6"}`}))
		want := weightShares(2)
		want["10.10.2.99:9001"] = 6
		Eventually(ctx, func() int { return draw(ctx, l.pod("client"), 200, address+":7").endpoints["10.10.2.99:9001"] }).
			Should(BeNumerically(">", 0), "the fourth endpoint is served")
		expectShares(ctx, l.pod("client"), address+":7", want)
	})
})

var _ = Describe("The build that ignores weights", Ordered, ContinueOnFailure, func() {
	var l *lab
	BeforeAll(func(ctx SpecContext) {
		l = newLabOf(ctx, built.controls["ignore_weights"], twoNodes+balanceClients)
		l.put("weights", weightedDocuments())
		l.expectPorts(ctx, "left", len(weightCases))
		_, last := weightService(len(weightCases) - 1)
		expectServed(ctx, l.pod("client"), last+":7")
	})

	for i, weights := range weightCases {
		uniform := weights[0] == weights[len(weights)-1]
		_, address := weightService(i)
		It(fmt.Sprint("is caught by ", weights), func(ctx SpecContext) {
			failures := InterceptGomegaFailures(func() {
				expectShares(ctx, l.pod("client"), address+":7", weightShares(i))
			})
			if uniform {
				Expect(failures).To(BeEmpty(), "equal weights are no weights")
			} else {
				Expect(failures).NotTo(BeEmpty(), "the check of %v cannot fail", weights)
			}
		})
	}
})

var _ = Describe("Endpoints by distance", Ordered, ContinueOnFailure, func() {
	var l *lab
	// Of ten endpoints 0-1 are on left, 2-4 in its zone, 5-9 elsewhere; left is in west, right in east.
	endpoint := func(i int) string { return fmt.Sprintf("10.20.0.%d", i+1) }
	uniform := func(from, to int) shares {
		want := shares{}
		for i := from; i < to; i++ {
			want[endpoint(i)+":9001"] = 1
		}
		return want
	}
	hinted := func(name string, hints func(i int) string) slice {
		s := slice{name: name, service: name, ports: udpTarget}
		for i := range 10 {
			s.endpoints = append(s.endpoints, ready(endpoint(i), hints(i)))
		}
		return s
	}
	zone := func(i int) string {
		if i < 5 {
			return "west"
		}
		return "north"
	}
	node := func(i int) string {
		if i < 2 {
			return "left"
		}
		return fmt.Sprint("elsewhere-", i)
	}
	byZone := func(i int) string { return fmt.Sprintf("hints: {forZones: [{name: %s}]}", zone(i)) }
	byNode := func(i int) string {
		return fmt.Sprintf("hints: {forNodes: [{name: %s}], forZones: [{name: %s}]}", node(i), zone(i))
	}

	BeforeAll(func(ctx SpecContext) {
		l = newLab(ctx, twoNodes+balanceClients)
		l.put("services", documents(
			udpService("zone", "10.96.2.1", "trafficDistribution: PreferSameZone"),
			udpService("close", "10.96.2.2", "trafficDistribution: PreferClose"),
			udpService("node", "10.96.2.3", "trafficDistribution: PreferSameNode"),
			udpService("unhinted", "10.96.2.4", "trafficDistribution: PreferSameZone"),
			udpService("anywhere", "10.96.2.5", ""),
			udpService("pods", "10.96.2.6", "selector: {app: pods}", "trafficDistribution: PreferSameNode"),
			udpService("local", "10.96.2.7", "selector: {app: pods}", "internalTrafficPolicy: Local"),
		))
		l.put("slices", documents(hinted("zone", byZone), hinted("close", byZone),
			hinted("unhinted", func(i int) string {
				if i == 9 {
					return "zone: north" // one without hints, and the hints of all are void (kube-proxy)
				}
				return byZone(i)
			}), hinted("anywhere", func(i int) string { return "zone: " + zone(i) })))
		l.put("node", hinted("node", byNode).String())
		l.put("pods", documents(
			backend{name: "p0", app: "pods", node: "left", address: "10.20.1.1"},
			backend{name: "p1", app: "pods", node: "left", address: "10.20.1.2"},
			backend{name: "p2", app: "pods", node: "right", address: "10.20.1.3"},
		))
		for i := range 7 {
			expectServed(ctx, l.pod("client"), fmt.Sprintf("10.96.2.%d:7", i+1))
			expectServed(ctx, l.pod("other"), fmt.Sprintf("10.96.2.%d:7", i+1))
		}
	})

	DescribeTable("are chosen", func(ctx SpecContext, client, to string, want func() shares) {
		expectShares(ctx, l.pod(client), to, want())
	},
		Entry("in the client's zone: PreferSameZone", "client", "10.96.2.1:7", func() shares { return uniform(0, 5) }),
		Entry("in the client's zone: PreferClose", "client", "10.96.2.2:7", func() shares { return uniform(0, 5) }),
		Entry("on the client's node: PreferSameNode", "client", "10.96.2.3:7", func() shares { return uniform(0, 2) }),
		Entry("anywhere, where the zone has none", "other", "10.96.2.1:7", func() shares { return uniform(0, 10) }),
		Entry("anywhere, where neither node nor zone has one", "other", "10.96.2.3:7",
			func() shares { return uniform(0, 10) }),
		Entry("anywhere, where one endpoint has no hint", "client", "10.96.2.4:7", func() shares { return uniform(0, 10) }),
		Entry("anywhere, where there is no preference", "client", "10.96.2.5:7", func() shares { return uniform(0, 10) }),
		Entry("on the client's node, by pods", "client", "10.96.2.6:7",
			func() shares { return shares{"10.20.1.1:9001": 1, "10.20.1.2:9001": 1} }),
		Entry("on the other client's node, by pods", "other", "10.96.2.6:7",
			func() shares { return shares{"10.20.1.3:9001": 1} }),
		Entry("on the client's node alone: Local", "client", "10.96.2.7:7",
			func() shares { return shares{"10.20.1.1:9001": 1, "10.20.1.2:9001": 1} }),
		Entry("on the other client's node alone: Local", "other", "10.96.2.7:7",
			func() shares { return shares{"10.20.1.3:9001": 1} }),
	)

	It("fall back to the zone when the node's last one is not ready", func(ctx SpecContext) {
		s := hinted("node", byNode)
		for i := range 2 {
			s.endpoints[i] = ready(endpoint(i), byNode(i), "conditions: {ready: false, serving: false}")
		}
		l.put("node", s.String())
		DeferCleanup(func() { l.put("node", hinted("node", byNode).String()) })
		Eventually(ctx, func() map[string]int { return draw(ctx, l.pod("client"), 100, "10.96.2.3:7").endpoints }).
			ShouldNot(Or(HaveKey(endpoint(0)+":9001"), HaveKey(endpoint(1)+":9001")), "they are no longer chosen")
		expectShares(ctx, l.pod("client"), "10.96.2.3:7", uniform(2, 5))
	})
})
