// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// Addresses of pods and endpoints are the same in every run, and the hash has no seed: so are the outcomes here.
var _ = Describe("Consistent hashing", Ordered, ContinueOnFailure, func() {
	var l *lab
	const pods, endpoints, to = 40, 10, "10.96.0.10:7"
	endpoint := func(i int) string { return fmt.Sprintf("10.20.0.%d", i+1) }
	put := func(ctx SpecContext, from int) {
		s := slice{name: "s", service: "s", ports: udpTarget}
		for i := from; i < endpoints; i++ {
			s.endpoints = append(s.endpoints, ready(endpoint(i)))
		}
		l.put("s", s.String())
		for _, node := range []string{"left", "right"} {
			Eventually(ctx, func() int { return len(l.served(ctx, node, "default/s")) }).Should(Equal(endpoints - from))
		}
	}
	// places returns the endpoint of each pod; ten connections of a pod find the same one.
	places := func(ctx SpecContext) map[string]string {
		GinkgoHelper()
		found := map[string]string{}
		for _, pod := range []string{"l", "r"} {
			for i := range pods / 2 {
				name := fmt.Sprintf("%s-%d", pod, i)
				got := draw(ctx, l.pod(name), 10, to)
				Expect(got.endpoints).To(HaveLen(1), "pod %s was given %v", name, got.endpoints)
				for endpoint := range got.endpoints {
					found[name] = endpoint
				}
			}
		}
		return found
	}

	BeforeAll(func(ctx SpecContext) {
		l = newLab(ctx, twoNodes+fmt.Sprintf(`
  - {name: l, node: left, count: %d, enrol: true}
  - {name: r, node: right, count: %d, enrol: true}
`, pods/2, pods/2))
		hashed := udpService("s", "10.96.0.10")
		hashed.meta = "annotations: {evenkeel.io/consistent-hash: source}"
		l.put("service", hashed.String())
		put(ctx, 0)
	})

	It("gives each pod one endpoint, by its address alone", func(ctx SpecContext) {
		before := places(ctx)
		used := map[string]int{}
		for _, endpoint := range before {
			used[endpoint]++
		}
		Expect(len(used)).To(BeNumerically(">=", 8), "%d pods on %d endpoints: %v", pods, endpoints, used)

		l.drop("s")
		for _, node := range []string{"left", "right"} {
			Eventually(ctx, func() int { return len(l.served(ctx, node, "default/s")) }).Should(BeZero())
		}
		put(ctx, 0)
		Expect(places(ctx)).To(Equal(before), "endpoints that were forgotten and come back are where they were")
	})

	It("moves hardly a pod but those whose endpoint is gone", func(ctx SpecContext) {
		before := places(ctx)
		put(ctx, 1)
		gone, moved := endpoint(0)+":9001", 0
		for pod, endpoint := range places(ctx) {
			Expect(endpoint).NotTo(Equal(gone))
			if before[pod] != gone && before[pod] != endpoint {
				moved++
			}
		}
		Expect(moved).To(BeNumerically("<=", 2), "Maglev moves 2 %% of the others, not none")
		put(ctx, 0)
		Expect(places(ctx)).To(Equal(before), "and back")
	})
})
