// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// What the conditions of an EndpointSlice's endpoints mean (discovery/v1), one state of a service after the other.
var _ = Describe("Endpoints by condition", Ordered, ContinueOnFailure, func() {
	const (
		bare        = "10.20.2.1" // says nothing, which is ready
		leaving     = "10.20.2.2" // ready, though it terminates
		draining    = "10.20.2.3"
		unready     = "10.20.2.4"
		terminating = "10.20.2.5" // and serves no more
		to          = "10.96.3.1:7"
	)
	conditions := map[string]string{
		leaving:     "conditions: {ready: true, serving: true, terminating: true}",
		draining:    "conditions: {ready: false, serving: true, terminating: true}",
		unready:     "conditions: {ready: false, serving: true, terminating: false}",
		terminating: "conditions: {ready: false, serving: false, terminating: true}",
	}
	endpoints := func(addresses ...string) string {
		s := slice{name: "web", service: "web", ports: udpTarget}
		for _, address := range addresses {
			if conditions[address] == "" {
				s.endpoints = append(s.endpoints, ready(address))
			} else {
				s.endpoints = append(s.endpoints, ready(address, conditions[address]))
			}
		}
		return s.String()
	}
	var l *lab
	BeforeAll(func(ctx SpecContext) {
		l = newLab(ctx, oneNode+"\n  - {name: client, node: a, enrol: true}\n")
		l.put("service", udpService("web", "10.96.3.1").String())
	})
	// served waits until what was put is what serves: the kernel refuses, or chooses, otherwise than before.
	served := func(ctx SpecContext, want ...string) {
		GinkgoHelper()
		wanted := shares{}
		for _, address := range want {
			wanted[address+":9001"] = 1
		}
		Eventually(ctx, func() map[string]int { return draw(ctx, l.pod("client"), 100, to).endpoints }).
			Should(HaveLen(len(want)))
		if len(want) > 0 {
			expectShares(ctx, l.pod("client"), to, wanted)
		}
	}

	It("are chosen while they are ready, and no others", func(ctx SpecContext) {
		l.put("slice", endpoints(bare, leaving, draining, unready, terminating))
		served(ctx, bare, leaving)
	})

	It("are chosen while they terminate and still serve, where none is ready", func(ctx SpecContext) {
		l.put("slice", endpoints(draining, unready, terminating))
		served(ctx, draining)
	})

	It("refuse at once where none is left to serve", func(ctx SpecContext) {
		l.put("slice", endpoints(unready, terminating))
		served(ctx)
		Expect(draw(ctx, l.pod("client"), 100, to).errors).To(Equal(map[string]int{"ECONNREFUSED": 100}))
	})

	It("are chosen again once they are ready", func(ctx SpecContext) {
		l.put("slice", endpoints(bare, draining))
		served(ctx, bare)
	})
})
