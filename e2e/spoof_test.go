// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"path/filepath"

	"github.com/cilium/ebpf"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/evenkeel/evenkeel/e2e/client/report"
)

var _ = Describe("A packet whose source is not the pod's", Ordered, ContinueOnFailure, func() {
	var l *lab
	BeforeAll(func(ctx SpecContext) {
		l = newLab(ctx, oneNode+`
  - {name: checked, node: a, enrol: true}
  - {name: unchecked, node: a, enrol: false}
  - {name: victim, node: a}
  - {name: receiver, node: a}
`)
	})

	// arrivals sends a forged and then an honest datagram from pod and returns the sources that the receiver saw: the
	// honest one comes last on the same path, so what had not arrived before it never will.
	arrivals := func(ctx SpecContext, pod string, family int) (forged, honest []string) {
		to := at(l.addressOf("receiver", family), 9999)
		receiver := start[receiverLine](ctx, l.pod("receiver"), "receive", ":9999")
		Eventually(ctx, receiver.seen).ShouldNot(BeEmpty(), "the receiver listens")
		for _, from := range []string{l.addressOf("victim", family), l.addressOf(pod, family)} {
			ask[report.Attempt](ctx, l.pod(pod), "forge", "-from", at(from, 5353), "-count=10", to)
		}
		seen := func() []string {
			forged, honest = nil, nil
			for _, line := range receiver.seen() {
				switch line.From {
				case at(l.addressOf("victim", family), 5353):
					forged = append(forged, line.From)
				case at(l.addressOf(pod, family), 5353):
					honest = append(honest, line.From)
				}
			}
			return honest
		}
		Eventually(ctx, seen).Should(HaveLen(10), "honest packets arrive")
		receiver.stop()
		return forged, honest
	}

	for _, family := range []int{4, 6} {
		name := map[int]string{4: "IPv4", 6: "IPv6"}[family]
		It("does not leave an enrolled pod, and is counted: "+name, func(ctx SpecContext) {
			before := l.counter(ctx, "a", "refused_source")
			forged, _ := arrivals(ctx, "checked", family)
			Expect(forged).To(BeEmpty())
			Expect(l.counter(ctx, "a", "refused_source")).To(Equal(before + 10))
		})
		It("does not leave it either when the agent has put back what told of the check: "+name, func(ctx SpecContext) {
			unlist(l, "a", l.workloads(ctx, "a")["default/checked"])
			Eventually(ctx, func() bool { return l.status(ctx, "a").Healthy }).WithTimeout(mendTime).Should(BeTrue(),
				"%s", l.problems(ctx, "a"))
			before := l.counter(ctx, "a", "refused_source")
			forged, _ := arrivals(ctx, "checked", family)
			Expect(forged).To(BeEmpty())
			Expect(l.counter(ctx, "a", "refused_source")).To(Equal(before + 10))
		})
		It("leaves a pod that was enrolled without the check: "+name, func(ctx SpecContext) {
			got := l.enrol(ctx, "unchecked", "--source-check=false")
			Expect(got.code).To(BeZero(), "%+v", got)
			forged, _ := arrivals(ctx, "unchecked", family)
			Expect(forged).To(HaveLen(10), "nothing else on this node would stop it")
		})
	}
})

// unlist deletes the element of map workloads that is found by the index of a pod's interface (struct workload_key).
func unlist(l *lab, node string, w workloadStatus) {
	GinkgoHelper()
	m, err := ebpf.LoadPinnedMap(filepath.Join(l.pins(node), "maps", "workloads"), nil)
	Expect(err).NotTo(HaveOccurred())
	defer m.Close()
	const byInterface = 2
	Expect(m.Delete([2]uint64{uint64(w.Interface), byInterface})).To(Succeed())
}

// receiverLine is what the receiver prints: that it listens, then what comes in.
type receiverLine struct {
	report.Listening
	report.Datagram
}
