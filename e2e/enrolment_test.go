// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/binary"
	"net/netip"
	"path/filepath"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

var _ = Describe("Enrolment", Ordered, ContinueOnFailure, func() {
	var l *lab
	const to = "10.96.0.10:7"

	BeforeAll(func(ctx SpecContext) {
		l = newLab(ctx, oneNode+`
  - {name: enrolled, node: a, enrol: true}
  - {name: plain, node: a}
  - {name: host, node: a, hostNetwork: true, enrol: true}
  - {name: proxied, node: a, containers: [main, istio-proxy], enrol: true}
  - {name: ambient, node: a, labels: {istio.io/dataplane-mode: ambient}, enrol: true}
  - {name: web, node: a, enrol: true, labels: {app: web}, serve: ["http :8080", "tcp :9000", "udp :9001"]}
`)
		l.put("web", documents(webService("web", "10.96.0.10", "fd00:96::10")))
		l.expectPorts(ctx, "a", 6)
		swallow(ctx, l, "a", "7", "80")
		Eventually(ctx, func() string { return answerOf(ctx, l.pod("enrolled"), to) }).Should(Equal("ping"), "it is served")
	})

	It("is what makes a pod reach services; others are untouched", func(ctx SpecContext) {
		for _, pod := range []string{"plain", "host", "proxied", "ambient"} {
			Expect(answerOf(ctx, l.pod(pod), to)).To(Equal("swallowed"), "%s reaches what the node routes it to", pod)
		}
		Expect(answerOf(ctx, l.Node("a"), to)).To(Equal("swallowed"), "a process of the node")
		Expect(answerOf(ctx, l.pod("enrolled"), to)).To(Equal("ping"))
	})

	DescribeTable("refuses a pod that it would harm, and says why", func(ctx SpecContext, pod, reason string) {
		got := l.enrol(ctx, pod)
		Expect(got.stdout+got.stderr).To(ContainSubstring(reason), "%+v", got)
		Expect(l.workloads(ctx, "a")).To(HaveKeyWithValue("default/"+pod, And(
			HaveField("Enrolled", BeFalse()), HaveField("Reason", ContainSubstring(reason)))), "status says so, too")
	},
		Entry("of the node's network", "host", "host network"),
		Entry("with a sidecar", "proxied", "istio-proxy"),
		Entry("of another mesh", "ambient", "istio ambient"),
	)

	It("is shown as a problem where somebody has enrolled such a pod without its manifest", func(ctx SpecContext) {
		got := l.evenkeel(ctx, "a", "enrol", "--netns="+l.netns("proxied"), "--pod=default/proxied")
		Expect(got.code).To(BeZero(), "%+v", got)
		status := l.status(ctx, "a")
		Expect(status.Healthy).To(BeFalse())
		Expect(status.Problems).To(ContainElement(And(ContainSubstring("default/proxied"), ContainSubstring("evenkeel withdraw"))))
		Expect(l.workloads(ctx, "a")).To(HaveKeyWithValue("default/proxied", And(
			HaveField("Enrolled", BeTrue()), HaveField("Reason", ContainSubstring("istio-proxy")))))
		Expect(l.withdraw(ctx, "proxied").code).To(BeZero())
		Expect(l.status(ctx, "a").Healthy).To(BeTrue())
	})

	It("shows who is enrolled", func(ctx SpecContext) {
		all := l.workloads(ctx, "a")
		Expect(all).To(HaveKeyWithValue("default/enrolled", HaveField("Enrolled", BeTrue())))
		Expect(all).To(HaveKeyWithValue("default/plain", HaveField("Enrolled", BeFalse())))
	})

	It("takes a running pod in and out while its connections go on", func(ctx SpecContext) {
		direct := l.addressOf("web", 4)
		running := hold(ctx, l.pod("plain"), "tcp="+at(direct, 9000), "udp="+at(direct, 9001), "http="+at(direct, 8080))
		Expect(l.enrol(ctx, "plain").code).To(BeZero())
		Expect(answerOf(ctx, l.pod("plain"), to)).To(Equal("ping"), "it is enrolled")
		inside := hold(ctx, l.pod("plain"), "tcp="+to, "udp="+to, "udp-free="+to, "http=10.96.0.10:80")
		Expect(l.withdraw(ctx, "plain").code).To(BeZero())
		Expect(answerOf(ctx, l.pod("plain"), to)).To(Equal("swallowed"), "it is out")
		running.advance(ctx, 20)
		inside.advance(ctx, 20)
		inside.expectUnharmed()
		running.expectUnharmed()
	})

	It("may be repeated, and so may withdrawal", func(ctx SpecContext) {
		for range 2 {
			Expect(l.enrol(ctx, "plain").code).To(BeZero())
			Expect(answerOf(ctx, l.pod("plain"), to)).To(Equal("ping"))
		}
		for range 2 {
			Expect(l.withdraw(ctx, "plain").code).To(BeZero())
			Expect(answerOf(ctx, l.pod("plain"), to)).To(Equal("swallowed"))
		}
	})

	It("needs no agent", func(ctx SpecContext) {
		Expect(l.stopAgent(ctx, "a", syscall.SIGKILL)).NotTo(Succeed())
		DeferCleanup(func(ctx SpecContext) { l.startAgent(ctx, "a") })
		Expect(l.enrol(ctx, "plain").code).To(BeZero())
		Expect(answerOf(ctx, l.pod("plain"), to)).To(Equal("ping"))
		Expect(l.withdraw(ctx, "plain").code).To(BeZero())
		Expect(answerOf(ctx, l.pod("plain"), to)).To(Equal("swallowed"))
	})

	DescribeTable("says what is wrong with", func(ctx SpecContext, code int, want string, args ...string) {
		got := l.evenkeel(ctx, "a", append([]string{"enrol"}, args...)...)
		Expect(got.code).To(Equal(code), "%+v", got)
		Expect(got.stderr).To(ContainSubstring(want))
	},
		Entry("a path that is not there", 1, "/run/netns/missing", "--netns=/run/netns/missing", "--pod=default/x"),
		Entry("a file that is no namespace", 1, "/etc/passwd", "--netns=/etc/passwd", "--pod=default/x"),
		Entry("a namespace of another kind", 1, "/proc/self/ns/mnt", "--netns=/proc/self/ns/mnt", "--pod=default/x"),
		Entry("a pod without a name", 2, "--pod", "--netns=/proc/self/ns/net"),
		Entry("a pod without a namespace", 2, "--netns", "--pod=default/x"),
		Entry("a name that is none", 2, "NS/NAME", "--netns=/proc/self/ns/net", "--pod=x"),
	)

	It("does not take the node's own namespace in", func(ctx SpecContext) {
		got := l.evenkeel(ctx, "a", "enrol", "--netns=/proc/self/ns/net", "--pod=default/node")
		Expect(got.stdout+got.stderr).To(ContainSubstring("host network"), "%+v", got)
		Expect(answerOf(ctx, l.Node("a"), to)).To(Equal("swallowed"))
	})

	It("says that nothing serves where there is no data plane", func(ctx SpecContext) {
		missing := filepath.Join(bpffs, "e2e-missing")
		got := runIn(ctx, l.Node("a"), nil, built.evenkeel, "enrol", "--pin-dir", missing,
			"--netns="+l.netns("plain"), "--pod=default/plain")
		Expect(got.code).To(Equal(1))
		Expect(got.stderr).To(ContainSubstring(missing))
	})
})

var _ = Describe("A load balancer that runs before ours", func() {
	const to = "10.96.0.10:7"
	spec := oneNode + `
  - {name: client, node: a}
  - {name: web, node: a, enrol: true, labels: {app: web}, serve: ["http :8080", "tcp :9000", "udp :9001"]}
`
	It("makes enrolment refuse every pod of the node, and is named", func(ctx SpecContext) {
		l := newLab(ctx, spec)
		l.put("web", documents(webService("web", "10.96.0.10")))
		Expect(l.stopAgent(ctx, "a", syscall.SIGKILL)).NotTo(Succeed())
		Expect(l.evenkeel(ctx, "a", "uninstall", "--yes").code).To(BeZero())
		attachBalancer(l, "cil_sock4_conne", to, at(l.addressOf("web", 4), 9000))
		l.startAgent(ctx, "a")
		got := l.enrol(ctx, "client")
		Expect(got.code).To(Equal(1), "%+v", got)
		Expect(got.stderr).To(ContainSubstring("Cilium"))
		Expect(l.problems(ctx, "a")).To(ContainSubstring("cil_sock4_conne"), "status says so, too")
		Expect(answerOf(ctx, l.pod("client"), to)).To(Equal("ping"), "the other one serves it")
		Expect(l.counter(ctx, "a", "connect")).To(BeZero(), "and not this data plane")
		doctor := l.evenkeel(ctx, "a", "doctor", "--cgroup", l.cgroup("nodes", "a"))
		Expect(doctor.stdout).To(ContainSubstring("Cilium's socket load balancer chooses endpoints"))
	})

	It("is warned of where nothing is known of it", func(ctx SpecContext) {
		l := newLab(ctx, spec)
		Expect(l.stopAgent(ctx, "a", syscall.SIGKILL)).NotTo(Succeed())
		Expect(l.evenkeel(ctx, "a", "uninstall", "--yes").code).To(BeZero())
		attachBalancer(l, "somebody", to, at(l.addressOf("web", 4), 9000))
		l.startAgent(ctx, "a")
		Expect(l.enrol(ctx, "client").code).To(BeZero())
		Expect(l.evenkeel(ctx, "a", "status").stdout).To(MatchRegexp(`warning: program somebody .* connect4`))
	})

	It("is let be where it runs after ours", func(ctx SpecContext) {
		l := newLab(ctx, spec)
		l.put("web", documents(webService("web", "10.96.0.10")))
		attachBalancer(l, "cil_sock4_conne", to, "192.0.2.1:9")
		Expect(l.enrol(ctx, "client").code).To(BeZero())
		Eventually(ctx, func() string { return answerOf(ctx, l.pod("client"), to) }).Should(Equal("ping"),
			"it finds nothing of the service left")
	})
})

// attachBalancer attaches a program behind what node a has, which connects to one address where another is dialled. The
// kernel keeps 15 bytes of its name.
func attachBalancer(l *lab, name, from, to string) {
	GinkgoHelper()
	const userIP4, userPort = 4, 24 // in struct bpf_sock_addr
	word := func(b []byte) int32 { return int32(binary.NativeEndian.Uint32(b)) }
	dialled, instead := netip.MustParseAddrPort(from), netip.MustParseAddrPort(to)
	port := binary.BigEndian.AppendUint16(nil, instead.Port())
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: name, Type: ebpf.CGroupSockAddr, AttachType: ebpf.AttachCGroupInet4Connect, License: "GPL",
		Instructions: asm.Instructions{
			asm.LoadMem(asm.R2, asm.R1, userIP4, asm.Word),
			asm.JNE.Imm32(asm.R2, word(dialled.Addr().AsSlice()), "proceed"),
			asm.Mov.Imm32(asm.R2, word(instead.Addr().AsSlice())),
			asm.StoreMem(asm.R1, userIP4, asm.R2, asm.Word),
			asm.Mov.Imm32(asm.R2, int32(binary.NativeEndian.Uint16(port))),
			asm.StoreMem(asm.R1, userPort, asm.R2, asm.Word),
			asm.Mov.Imm(asm.R0, 1).WithSymbol("proceed"),
			asm.Return(),
		},
	})
	Expect(err).NotTo(HaveOccurred())
	attached, err := link.AttachCgroup(link.CgroupOptions{
		Path: l.cgroup("nodes", "a"), Attach: ebpf.AttachCGroupInet4Connect, Program: program,
	})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() {
		Expect(attached.Close()).To(Succeed())
		Expect(program.Close()).To(Succeed())
	})
}
