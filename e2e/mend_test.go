// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/cilium/ebpf/link"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// mendTime is enough for an agent to come by: it looks after pods every 15 s.
const mendTime = 45 * time.Second

var _ = Describe("What others take away", Ordered, ContinueOnFailure, func() {
	var l *lab
	const to = "10.96.0.10:7"

	BeforeAll(func(ctx SpecContext) {
		l = newLab(ctx, oneNode+`
  - {name: client, node: a, enrol: true}
  - {name: plain, node: a}
  - {name: web, node: a, enrol: true, labels: {app: web}, serve: ["http :8080", "tcp :9000", "udp :9001"]}
`)
		l.put("web", documents(webService("web", "10.96.0.10", "fd00:96::10")))
		l.expectPorts(ctx, "a", 6)
		swallow(ctx, l, "a", "7", "80")
		Eventually(ctx, func() string { return answerOf(ctx, l.pod("client"), to) }).Should(Equal("ping"), "it is served")
	})

	// taken detaches a link, as `bpftool link detach` does: its pin and the object stay.
	taken := func(pin string) {
		GinkgoHelper()
		found, err := link.LoadPinnedLink(filepath.Join(l.pins("a"), pin), nil)
		Expect(err).NotTo(HaveOccurred())
		defer found.Close()
		Expect(found.(interface{ Detach() error }).Detach()).To(Succeed())
	}

	mended := func(ctx SpecContext) {
		GinkgoHelper()
		Eventually(ctx, func() []string { return l.status(ctx, "a").Problems }).WithTimeout(mendTime).Should(BeEmpty())
	}

	It("from a pod that lives is attached again, and the pod stays a workload", func(ctx SpecContext) {
		before := l.workloads(ctx, "a")["default/client"]
		for _, hook := range []string{"sk_lookup", "tcx"} {
			taken(filepath.Join("links", "pods", fmt.Sprint(before.Cookie), hook))
		}
		mended(ctx)
		Expect(l.workloads(ctx, "a")["default/client"]).To(Equal(before))
		Expect(answerOf(ctx, l.pod("client"), to)).To(Equal("ping"))
	})

	It("from the node is attached again", func(ctx SpecContext) {
		taken("links/connect4")
		mended(ctx)
		Expect(answerOf(ctx, l.pod("client"), to)).To(Equal("ping"))
	})

	It("leaves no pod half enrolled that is enrolled and withdrawn at once", func(ctx SpecContext) {
		for range 20 {
			var both sync.WaitGroup
			var enrolled, withdrawn result
			both.Go(func() { defer GinkgoRecover(); enrolled = l.enrol(ctx, "plain") })
			both.Go(func() { defer GinkgoRecover(); withdrawn = l.withdraw(ctx, "plain") })
			both.Wait()
			Expect([]int{enrolled.code, withdrawn.code}).To(Equal([]int{0, 0}), "%+v\n%+v", enrolled, withdrawn)
			status := l.status(ctx, "a")
			Expect(status.Problems).To(BeEmpty())
			want := "swallowed"
			if l.workloads(ctx, "a")["default/plain"].Enrolled {
				want = "ping"
			}
			Expect(answerOf(ctx, l.pod("plain"), to)).To(Equal(want))
		}
		Expect(l.withdraw(ctx, "plain").code).To(BeZero())
	})
})
