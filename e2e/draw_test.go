// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"maps"
	"slices"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/evenkeel/evenkeel/e2e/client/report"
)

// drawn is which endpoints the kernel gave to how many connected UDP sockets, and how many it refused by error.
type drawn struct {
	endpoints, errors map[string]int
}

// draw connects count UDP sockets of a pod to one address and looks at what they were given.
func draw(ctx context.Context, where place, count int, to string) drawn {
	GinkgoHelper()
	all := drawn{map[string]int{}, map[string]int{}}
	for _, batch := range ask[report.Draw](ctx, where, "draw", "-count", fmt.Sprint(count), to) {
		for endpoint, n := range batch.Endpoints {
			all.endpoints[endpoint] += n
		}
		for errno, n := range batch.Errors {
			all.errors[errno] += n
		}
	}
	return all
}

// total returns the number of sockets that were given an endpoint.
func (d drawn) total() int {
	n := 0
	for _, count := range d.endpoints {
		n += count
	}
	return n
}

// expectServed waits until to is a service's address and has an endpoint; what that is is for the spec to say.
func expectServed(ctx context.Context, where place, to string) {
	GinkgoHelper()
	Eventually(ctx, func() bool {
		got := draw(ctx, where, 1, to)
		return got.total() == 1 && got.endpoints[to] == 0 // an address that is no service's is given to itself
	}).Should(BeTrue(), to+" is served")
}

// shares are the expected proportions by endpoint. An endpoint that is drawn and not listed fails every expectation.
type shares map[string]float64

// against returns counts and shares in one order.
func (d drawn) against(want shares) (counts []int, proportions []float64) {
	keys := slices.Sorted(maps.Keys(want))
	for endpoint := range d.endpoints {
		if _, known := want[endpoint]; !known {
			keys = append(keys, endpoint) // its share is 0
		}
	}
	for _, key := range keys {
		counts = append(counts, d.endpoints[key])
		proportions = append(proportions, want[key])
	}
	return counts, proportions
}

// significance is the probability below which a sample is taken for biased.
const significance = 0.001

// certainty is the probability below which no larger sample is drawn.
const certainty = 1e-9

// expectShares draws 100,000 connections and expects chi-square p > 0.001 for these shares. One fair case in 1,000 is
// below that by chance, so such a sample is not the verdict: ten times as many are drawn, and they are, because a bias
// grows in a larger sample and chance does not. Only where p is below 1e-9 is there nothing left to ask. A fair case
// fails with a probability of 1e-6, and a file of up to 90 cases with less than 1e-4.
func expectShares(ctx context.Context, where place, to string, want shares) {
	GinkgoHelper()
	const connections = 100_000
	p := 0.0
	var got drawn
	for _, n := range []int{connections, 10 * connections} {
		got = draw(ctx, where, n, to)
		Expect(got.errors).To(BeEmpty(), "no connection is refused")
		Expect(got.total()).To(Equal(n))
		if p = chiSquare(got.against(want)); p > significance {
			break
		}
		if p < certainty {
			break
		}
	}
	Expect(p).To(BeNumerically(">", significance), "chi-square of %v against %v", got.endpoints, want)
}
