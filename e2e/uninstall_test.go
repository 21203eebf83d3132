// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"path/filepath"
	"syscall"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

var _ = Describe("Uninstalling", func() {
	newUninstallLab := func(ctx SpecContext) *lab {
		l := newLab(ctx, twoNodes+`
  - {name: client, node: left, enrol: true}
  - {name: web, node: right, enrol: true, labels: {app: web}, serve: ["http :8080", "tcp :9000", "udp :9001"]}
`)
		l.put("web", documents(webService("web", "10.96.0.10")))
		expectServed(ctx, l.pod("client"), "10.96.0.10:7")
		return l
	}
	uninstall := func(ctx SpecContext, l *lab, args ...string) result {
		return l.evenkeel(ctx, "left", append([]string{"uninstall", "--yes"}, args...)...)
	}

	It("is refused while an agent runs", func(ctx SpecContext) {
		l := newUninstallLab(ctx)
		got := uninstall(ctx, l)
		Expect(got.code).To(Equal(1))
		Expect(got.stderr).To(ContainSubstring("--take-over"))
		expectServed(ctx, l.pod("client"), "10.96.0.10:7")
	})

	It("removes all that is its own and nothing else", func(ctx SpecContext) {
		l := newUninstallLab(ctx)
		others, err := pinned(l.pins("right"))
		Expect(err).NotTo(HaveOccurred())
		own, err := l.owned("left")
		Expect(err).NotTo(HaveOccurred())
		Expect(len(own)).To(BeNumerically(">", 50))
		Expect(l.stopAgent(ctx, "left", syscall.SIGTERM)).To(Succeed())
		got := uninstall(ctx, l)
		Expect(got.code).To(BeZero(), "%+v", got)
		Expect(l.pins("left")).NotTo(BeADirectory())
		Eventually(ctx, func() (objects, error) { return stillAlive(own) }).Should(BeEmpty(), "the kernel has freed it all")
		Expect(draw(ctx, l.pod("client"), 1, "10.96.0.10:7").endpoints).To(HaveKey("10.96.0.10:7"), "nothing is rewritten")
		after, err := pinned(l.pins("right"))
		Expect(err).NotTo(HaveOccurred())
		Expect(after).To(Equal(others), "the other node has what it had")
		Expect(uninstall(ctx, l).code).To(BeZero(), "there is nothing left to remove, and that is no failure")
	})

	It("lets connections go on that there are, and keeps nothing for them", func(ctx SpecContext) {
		l := newUninstallLab(ctx)
		own, err := l.owned("left")
		Expect(err).NotTo(HaveOccurred())
		running := hold(ctx, l.pod("client"), "tcp=10.96.0.10:7", "http=10.96.0.10:80", "udp=10.96.0.10:7")
		got := uninstall(ctx, l, "--take-over")
		Expect(got.code).To(BeZero(), "%+v", got)
		Eventually(ctx, func() (objects, error) { return stillAlive(own) }).Should(BeEmpty(), "the kernel has freed it all")
		running.advance(ctx, 100)
		running.expectUnharmed()
	})

	It("leaves what it does not know where it is, and names it", func(ctx SpecContext) {
		l := newUninstallLab(ctx)
		Expect(l.stopAgent(ctx, "left", syscall.SIGTERM)).To(Succeed())
		foreign := filepath.Join(l.pins("left"), "foreign")
		Expect(os.Mkdir(foreign, 0o755)).To(Succeed())
		DeferCleanup(func(ctx SpecContext) {
			Expect(os.Remove(foreign)).To(Succeed())
			Expect(uninstall(ctx, l).code).To(BeZero())
		})
		got := uninstall(ctx, l)
		Expect(got.code).To(Equal(1))
		Expect(got.stderr).To(ContainSubstring(foreign))
		Expect(foreign).To(BeADirectory())
	})
})
