// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/evenkeel/evenkeel/netsim"
	"github.com/evenkeel/evenkeel/netsim/inventory"
)

// settling is how long the kernel may take to free what nobody uses any more, and an agent to come to rest.
const settling = 15 * time.Second

// polling is how often is looked whether something has come true.
const polling = 50 * time.Millisecond

// take lists what a lab has.
func take(lab *netsim.Lab) inventory.Inventory {
	GinkgoHelper()
	i, err := inventory.Of(lab)
	Expect(err).NotTo(HaveOccurred())
	return i
}

// steady is what stays the very same when an agent is replaced by another. How many sockets the instrument has open
// changes all the time.
func steady(i inventory.Inventory) inventory.Inventory {
	return slices.DeleteFunc(i.Steady(), func(o inventory.Object) bool {
		return o.Kind == inventory.Descriptor && strings.Contains(o.Name, " flow: ")
	})
}

// same waits until a lab has what it had before, as far as compare tells them apart, and notes what differs as leaks.
func same(ctx SpecContext, lab *netsim.Lab, before inventory.Inventory,
	compare func(inventory.Inventory) inventory.Inventory) {
	GinkgoHelper()
	var lines []string
	tick := time.NewTicker(polling)
	defer tick.Stop()
	for deadline := time.Now().Add(settling); ; <-tick.C {
		gone, added := inventory.Difference(compare(before), compare(take(lab)))
		if lines = inventory.Lines(gone, added); len(lines) == 0 {
			return
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			for _, o := range added {
				found.Leaks = append(found.Leaks, o.String())
			}
			evidence("inventory, - before, + after", strings.Join(lines, "\n"))
			Expect(lines).To(BeEmpty(), "the lab has not what it had before:\n%s", strings.Join(lines, "\n"))
		}
	}
}

// down takes a lab down and makes sure that nothing of it is left.
func down(ctx SpecContext, lab *netsim.Lab) {
	GinkgoHelper()
	places, had := lab.Places(), take(lab)
	Expect(lab.Down(ctx)).To(Succeed())
	gone(ctx, places, had)
}

// gone waits until nothing of an inventory is left, and notes what is as leaks.
func gone(ctx SpecContext, places netsim.Places, had inventory.Inventory) {
	GinkgoHelper()
	tick := time.NewTicker(polling)
	defer tick.Stop()
	for deadline := time.Now().Add(settling); ; <-tick.C {
		left, err := had.Alive(places)
		Expect(err).NotTo(HaveOccurred())
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			lines := inventory.Lines(nil, left)
			for _, o := range left {
				found.Leaks = append(found.Leaks, o.String())
			}
			Expect(lines).To(BeEmpty(), "this was left behind:\n%s", strings.Join(lines, "\n"))
		}
	}
}
