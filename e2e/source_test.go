// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"path/filepath"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"
)

var _ = Describe("The source", Ordered, ContinueOnFailure, func() {
	var l *lab
	const kept, extra = "10.96.0.10:7", "10.96.0.20:7"

	status := func(ctx SpecContext) func() string {
		return func() string { return l.evenkeel(ctx, "a", "status").stdout }
	}
	// served tells whether an address is a service's: what is none passes and keeps its address.
	served := func(ctx SpecContext, to string) func() bool {
		return func() bool {
			got := draw(ctx, l.pod("client"), 1, to)
			return got.endpoints[to] == 0 && got.total() == 1
		}
	}

	BeforeAll(func(ctx SpecContext) {
		l = newLab(ctx, oneNode+`
  - {name: client, node: a, enrol: true}
  - {name: echo, node: a, enrol: true, labels: {app: echo}, serve: ["tcp :9000", "udp :9001"]}
`)
		l.put("kept", documents(echoService("echo", "10.96.0.10", "fd00:96::10")))
		Eventually(ctx, served(ctx, kept)).Should(BeTrue(), "the first file is served")
	})

	AfterEach(func(ctx SpecContext) {
		for _, name := range []string{"extra", "broken", "unknown"} {
			l.drop(name)
		}
		Eventually(ctx, served(ctx, extra)).Should(BeFalse(), "a file that is removed is forgotten")
		Expect(served(ctx, kept)()).To(BeTrue(), "what it does not name stays")
		Eventually(ctx, func() int { return l.evenkeel(ctx, "a", "status").code }).Should(BeZero(), "all is well again")
	})

	It("names kinds that it does not know and skips them", func(ctx SpecContext) {
		l.put("unknown", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {}\n---\n"+
			documents(extraService("extra", "10.96.0.20")))
		Eventually(ctx, served(ctx, extra)).Should(BeTrue(), "the rest of the file is served")
		Eventually(ctx, status(ctx)).Should(ContainSubstring("Deployment"))
	})

	DescribeTable("refuses a file that it cannot take, by line, and keeps what it had",
		func(ctx SpecContext, text, where string) {
			l.put("broken", text)
			Eventually(ctx, status(ctx)).Should(ContainSubstring(where))
			Expect(l.evenkeel(ctx, "a", "status").code).To(Equal(1), "an agent that cannot read its source is not well")
			Expect(served(ctx, kept)()).To(BeTrue())
			l.put("extra", documents(extraService("extra", "10.96.0.20")))
			Expect(served(ctx, extra)()).To(BeFalse(), "no part of a state that is not whole is taken")
			l.drop("broken")
			Eventually(ctx, served(ctx, extra)).Should(BeTrue(), "the next good state is")
		},
		Entry("syntax", "apiVersion: v1\nkind: Service\nmetadata: {name: broken\n", "broken.yaml:"),
		Entry("an unknown field",
			"---\n---\napiVersion: v1\nkind: Service\nmetadata: {name: broken}\nspec:\n  clusterip: 10.96.0.9\n",
			"broken.yaml:7"),
		Entry("an address that is none",
			"apiVersion: v1\nkind: Service\nmetadata: {name: broken}\nspec:\n  clusterIP: 10.96.0.999\n"+
				"  clusterIPs: [10.96.0.999]\n  ports: [{port: 80}]\n", "10.96.0.999"),
		Entry("a name given twice", documents(echoService("echo", "10.96.0.30")), "kept.yaml:"),
	)

	It("follows a file that is replaced by another", func(ctx SpecContext) {
		l.put("extra", documents(extraService("extra", "10.96.0.21")))
		Eventually(ctx, served(ctx, "10.96.0.21:7")).Should(BeTrue())
		l.put("extra", documents(extraService("extra", "10.96.0.20")))
		Eventually(ctx, served(ctx, extra)).Should(BeTrue())
		Eventually(ctx, served(ctx, "10.96.0.21:7")).Should(BeFalse(), "the address that it had is none now")
	})

	It("follows its directory when another takes its place at once", func(ctx SpecContext) {
		next := l.source() + ".next"
		Expect(os.CopyFS(next, os.DirFS(l.source()))).To(Succeed())
		DeferCleanup(os.RemoveAll, next)
		Expect(os.WriteFile(filepath.Join(next, "swapped.yaml"),
			[]byte(documents(extraService("swapped", "10.96.0.20"))), 0o644)).To(Succeed())
		exchange := func() error {
			return unix.Renameat2(unix.AT_FDCWD, next, unix.AT_FDCWD, l.source(), unix.RENAME_EXCHANGE)
		}
		Expect(exchange()).To(Succeed())
		Eventually(ctx, served(ctx, extra)).Should(BeTrue(), "the new directory is read")
		Expect(served(ctx, kept)()).To(BeTrue(), "what both have was not interrupted")
		Expect(exchange()).To(Succeed())
		Eventually(ctx, served(ctx, extra)).Should(BeFalse(), "and the old one again")
	})

	It("keeps what it had when its directory is away", func(ctx SpecContext) {
		away := l.source() + ".away"
		Expect(os.Rename(l.source(), away)).To(Succeed())
		Eventually(ctx, status(ctx)).Should(ContainSubstring(l.source()), "the status says what is missing")
		Expect(served(ctx, kept)()).To(BeTrue(), "missing is not empty")
		Expect(os.Rename(away, l.source())).To(Succeed())
	})
})

// extraService is one more service of the pods of echo.
func extraService(name, address string) service {
	return service{name: name, addresses: []string{address}, ports: echoPorts, more: []string{"selector: {app: echo}"}}
}
