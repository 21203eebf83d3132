// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/evenkeel/evenkeel/e2e/client/report"
)

var _ = Describe("Session affinity", Ordered, ContinueOnFailure, func() {
	var l *lab
	const services, each, endpoints = 2000, 50, 4
	service := func(i int) string { return fmt.Sprintf("10.96.%d.%d", 16+i/250, 1+i%250) }
	endpoint := func(i int) string { return fmt.Sprintf("10.20.2.%d", i+1) }
	// putEndpoint writes an endpoint to a file of its own, so that it can change alone.
	putEndpoint := func(i int, unready bool) {
		name := fmt.Sprint("few-", i)
		l.put(name, documents(backend{name: name, app: "few", node: "left", address: endpoint(i), unready: unready}))
	}

	BeforeAll(func(ctx SpecContext) {
		l = newLab(ctx, twoNodes+balanceClients)
		affine := "sessionAffinity: ClientIP"
		list := []fmt.Stringer{udpService("short", "10.96.3.1", "selector: {app: few}", affine,
			"sessionAffinityConfig: {clientIP: {timeoutSeconds: 1}}")}
		for i := range services {
			list = append(list, udpService(fmt.Sprint("s", i), service(i), "selector: {app: few}", affine))
		}
		for i := range endpoints {
			putEndpoint(i, false)
		}
		l.put("services", documents(list...))
		l.expectPorts(ctx, "left", services+1)
		l.expectPorts(ctx, "right", services+1)
	})

	// drawEach makes connections to every service and returns the one endpoint that each was given.
	drawEach := func(ctx SpecContext, pod string, connections int) map[string]string {
		GinkgoHelper()
		args := []string{"draw", fmt.Sprint("-count=", connections), fmt.Sprint("-batch=", connections)}
		for i := range services {
			args = append(args, service(i)+":7")
		}
		given := map[string]string{}
		for _, got := range ask[report.Draw](ctx, l.pod(pod), args...) {
			Expect(got.Errors).To(BeEmpty())
			Expect(got.Endpoints).To(HaveLen(1), "%s: %d connections went to %v", got.To, connections, got.Endpoints)
			for endpoint := range got.Endpoints {
				given[got.To] = endpoint
			}
		}
		Expect(given).To(HaveLen(services))
		return given
	}

	It("gives all connections of a pod to one endpoint, and to each its share of the choices", func(ctx SpecContext) {
		given := drawEach(ctx, "client", each) // 100,000 connections
		counted, want := drawn{endpoints: map[string]int{}}, shares{}
		for _, endpoint := range given {
			counted.endpoints[endpoint]++
		}
		for i := range endpoints {
			want[endpoint(i)+":9001"] = 1
		}
		// The choices are made once and cannot be drawn again: one test of one sample, at a level that keeps the odds of
		// a false alarm at 1e-5. The sample is small, so p above 0.001 is expected and not demanded.
		Expect(chiSquare(counted.against(want))).To(BeNumerically(">", 1e-5), "choices: %v", counted.endpoints)
	})

	It("outlives the agent", func(ctx SpecContext) {
		before := drawEach(ctx, "client", 1)
		Expect(l.stopAgent(ctx, "left", syscall.SIGKILL)).NotTo(Succeed())
		Expect(drawEach(ctx, "client", 1)).To(Equal(before))
		l.startAgent(ctx, "left")
		Expect(drawEach(ctx, "client", 1)).To(Equal(before))
	})

	It("moves when its endpoint is gone, and only then", func(ctx SpecContext) {
		before := drawEach(ctx, "client", 1)
		putEndpoint(0, true)
		DeferCleanup(func() { putEndpoint(0, false) })
		gone := endpoint(0) + ":9001"
		Eventually(ctx, func() map[string]string { return drawEach(ctx, "client", 1) }).
			ShouldNot(ContainElement(gone), "the endpoint that is not ready is given to nobody")
		for service, endpoint := range drawEach(ctx, "client", 1) {
			if before[service] != gone {
				Expect(endpoint).To(Equal(before[service]), "%s had another endpoint", service)
			}
		}
	})

	It("ends when a pod was idle for the timeout", func(ctx SpecContext) {
		current := func() string {
			for endpoint := range draw(ctx, l.pod("other"), 1, "10.96.3.1:7").endpoints {
				return endpoint
			}
			return "none"
		}
		expectServed(ctx, l.pod("other"), "10.96.3.1:7")
		kept := current()
		Consistently(ctx, current).WithTimeout(1500*time.Millisecond).WithPolling(100*time.Millisecond).Should(Equal(kept),
			"connections that follow each other keep it past the timeout")
		Eventually(ctx, current).WithTimeout(30*time.Second).WithPolling(1200*time.Millisecond).ShouldNot(Equal(kept),
			"after each 1.2 s of idleness a choice is made anew; that 20 of them are the same has a chance of 4^-20")
	})
})
