// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

var _ = Describe("evenkeel sim, killed while it works", func() {
	It("leaves what gc then removes to the last", func(ctx SpecContext) {
		random := rand.New(rand.NewPCG(uint64(GinkgoRandomSeed()), 2))
		path, name := simFile(simTopology)
		up, down := []string{"up", path}, []string{"down", "--name", name}
		// took runs a command to its end and returns how long that was.
		took := func(command []string) time.Duration {
			GinkgoHelper()
			start := time.Now()
			got := sim(ctx, command...)
			Expect(got.code).To(BeZero(), "%+v", got)
			return time.Since(start)
		}
		halfway := 0
		for range 4 {
			for _, command := range [][]string{up, down} {
				whole := took(up)
				if command[0] == "up" {
					took(down)
				} else {
					whole /= 4 // about what down takes
				}
				after := time.Duration(random.Int64N(int64(whole)))
				By(fmt.Sprintf("SIGKILL of %s after %v", command[0], after))
				doomed := host{}.Command(ctx, built.evenkeel, append([]string{"sim"}, command...)...)
				Expect(doomed.Start()).To(Succeed())
				timer := time.AfterFunc(after, func() { _ = doomed.Process.Kill() })
				_ = doomed.Wait() // killed, or done before
				timer.Stop()
				state := labState(ctx, name)
				if state == "halfway" {
					halfway++
					Expect(sim(ctx, "inspect", name).stderr).To(ContainSubstring("halfway"))
				}
				got := sim(ctx, "gc")
				Expect(got.code).To(BeZero(), "%+v", got)
				if state == "up" { // killed before it began to go, or after it was whole: not garbage
					Expect(labState(ctx, name)).To(Equal("up"), "gc leaves a whole lab alone")
					took(down)
				}
				Eventually(ctx, func() []string { return remains(name) }).
					Should(BeEmpty(), "%s, killed after %v", command[0], after)
			}
		}
		AddReportEntry("killed halfway, of 8", halfway)
	})
})

// labState returns what `sim ls` says of a lab: "up", "halfway" or "gone".
func labState(ctx SpecContext, name string) string {
	GinkgoHelper()
	got := sim(ctx, "ls", "-o", "json")
	var told struct {
		Labs []struct {
			Name  string `json:"name"`
			State string `json:"state"`
		} `json:"labs"`
	}
	Expect(json.Unmarshal([]byte(got.stdout), &told)).To(Succeed(), "%+v", got)
	for _, lab := range told.Labs {
		if lab.Name == name {
			return lab.State
		}
	}
	return "gone"
}
