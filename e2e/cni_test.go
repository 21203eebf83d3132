// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// byLabel is a node whose agent enrols by labels.
func byLabel(dir string) string { return byLabelIn(dir, dir) }

func byLabelIn(state, run string) string {
	return `
  nodes:
  - {name: a, podCIDRs: [10.10.1.0/24, "fd00:10:1::/64"]}
  agent: {enabled: true, args: [--enrol-by-label, --state-dir, ` + state + `, --run-dir, ` + run + `]}
  pods:
`
}

const meshedNamespaces = `---
apiVersion: v1
kind: Namespace
metadata: {name: meshed, labels: {evenkeel.io/mesh: enabled}}
---
apiVersion: v1
kind: Namespace
metadata: {name: ambient, labels: {evenkeel.io/mesh: enabled, istio.io/dataplane-mode: ambient}}
`

var _ = Describe("Enrolment by label, with nowhere to keep what was decided", func() {
	It("enrols pods that run, and status says what is not as it should be", func(ctx SpecContext) {
		l := newLab(ctx, byLabelIn("/dev/null/state", GinkgoT().TempDir())+`
  - {name: web, namespace: meshed, node: a, serve: ["tcp :9000"]}
`)
		l.put("namespaces", meshedNamespaces)
		Eventually(ctx, func() map[string]workloadStatus { return l.workloads(ctx, "a") }).
			Should(HaveKeyWithValue("meshed/web", HaveField("Enrolled", BeTrue())))
		Expect(l.problems(ctx, "a")).To(ContainSubstring("/dev/null"))
	})
})

var _ = Describe("The CNI plugin in a chain", Ordered, ContinueOnFailure, func() {
	var l *lab
	const to, to6 = "10.96.0.10:7", "[fd00:96::10]:7"

	BeforeAll(func(ctx SpecContext) {
		l = newLab(ctx, byLabel(GinkgoT().TempDir())+`
  - {name: web, node: a, labels: {app: web}, serve: ["http :8080", "tcp :9000", "udp :9001"]}
`)
		l.put("web", documents(webService("web", "10.96.0.10", "fd00:96::10"))+meshedNamespaces)
		l.expectPorts(ctx, "a", 6)
		swallow(ctx, l, "a", "7", "80")
		Eventually(func() bool { return exists(l.pins("a") + "_decisions1") }).Should(BeTrue(), "decisions are pinned")
	})

	DescribeTable("puts a pod into the mesh, and takes it out", func(ctx SpecContext, services []string, plugins ...string) {
		c := newChain(l, "a", "net", plugins...)
		Expect(c.libcni.GetStatusNetworkList(ctx, c.list)).To(Succeed())
		s := c.sandbox("meshed/web-0")
		Expect(s.add(ctx)).To(Succeed())
		Expect(l.workloads(ctx, "a")).To(HaveKeyWithValue("meshed/web-0", HaveField("Enrolled", BeTrue())))
		for _, service := range services {
			Eventually(ctx, func() string { return answerOf(ctx, s, service) }).Should(Equal("ping"), service)
		}
		Expect(s.check(ctx)).To(Succeed())
		for range 2 {
			Expect(s.del(ctx)).To(Succeed())
		}
		s.end()
		Expect(s.del(ctx)).To(Succeed())
		c.expectNothing(ctx)
	},
		Entry("last, of bridge, portmap and bandwidth", []string{to}, bridge(subnet4), portmap, bandwidth, ours),
		Entry("right behind the primary", []string{to}, bridge(subnet4), ours, portmap, bandwidth),
		Entry("between others that pass on", []string{to}, bridge(subnet4), tuning, ours, tuning),
		Entry("behind ptp", []string{to}, ptp(subnet4), ours),
		Entry("with IPv6", []string{to6}, bridge(subnet6), ours),
		Entry("with both", []string{to, to6}, bridge(subnet4, subnet6), portmap, ours),
	)

	It("is as the specification has it, for pods of the mesh, and the instrument finds what is not", func(ctx SpecContext) {
		conformance := func(plugin string, more ...string) result {
			binary := filepath.Join(filepath.Dir(built.evenkeel), "evenkeel-cni-conformance")
			return runIn(ctx, l.Node("a"), nil, binary, append([]string{"--plugin", plugin, "--parallel", "20", "-o", "json"}, more...)...)
		}
		dir := GinkgoT().TempDir()
		got := conformance(filepath.Join(filepath.Dir(built.evenkeel), "evenkeel-cni"), "--args=K8S_POD_NAMESPACE=meshed;K8S_POD_NAME=p%d",
			"--conf", `{"pinDir": "`+l.pins("a")+`", "stateDir": "`+dir+`", "runDir": "`+dir+`"}`)
		Expect(got.code).To(BeZero(), got.stdout+got.stderr)
		Expect(got.stdout).To(ContainSubstring("bpf LINK_CREATE"), "it was killed there, so pods were enrolled")
		for name := range l.workloads(ctx, "a") {
			Expect(name).NotTo(HavePrefix("meshed/"))
		}
		got = conformance(filepath.Join(built.plugins, "tuning"), "--no-kill")
		Expect(got.code).To(Equal(1), got.stdout+got.stderr)
		Expect(got.stdout).To(ContainSubstring("code 999 (Required prevResult missing), want [7]"))
	})

	It("leaves alone what nothing was said about, and what another mesh owns", func(ctx SpecContext) {
		c := newChain(l, "a", "net", bridge(subnet4), ours)
		for _, pod := range []string{"elsewhere/x", "ambient/x"} {
			s := c.sandbox(pod)
			Expect(s.add(ctx)).To(Succeed())
			Expect(answerOf(ctx, s, to)).To(Equal("swallowed"), pod)
			Expect(s.check(ctx)).To(Succeed())
			Expect(s.del(ctx)).To(Succeed())
		}
		c.expectNothing(ctx)
	})

	It("needs no agent", func(ctx SpecContext) {
		c := newChain(l, "a", "net", bridge(subnet4), portmap, ours)
		before := c.sandbox("meshed/before")
		Expect(before.add(ctx)).To(Succeed())
		Expect(l.stopAgent(ctx, "a", syscall.SIGKILL)).NotTo(Succeed())
		s := c.sandbox("meshed/during")
		Expect(s.add(ctx)).To(Succeed())
		Expect(answerOf(ctx, s, to)).To(Equal("ping"))
		Expect(s.check(ctx)).To(Succeed())
		Expect(before.del(ctx)).To(Succeed())
		l.startAgent(ctx, "a")
		Expect(answerOf(ctx, s, to)).To(Equal("ping"))
		Expect(s.del(ctx)).To(Succeed())
		c.expectNothing(ctx)
	})

	It("fails a pod of two interfaces never, and of none always", func(ctx SpecContext) {
		c := newChain(l, "a", "net", bridge(subnet4), ours)
		s := c.sandbox("meshed/web-0")
		Expect(s.add(ctx)).To(Succeed())
		_, err := c.libcni.AddNetworkList(ctx, c.list, s.runtime("net1"))
		Expect(err).NotTo(HaveOccurred())
		Expect(c.libcni.DelNetworkList(ctx, c.list, s.runtime("net1"))).To(Succeed())
		Expect(answerOf(ctx, s, to)).To(Equal("ping"))
		Expect(s.del(ctx)).To(Succeed())
		none := newChain(l, "a", "none", `{"type": "bridge", "bridge": "cni1", "ipam": {}}`, ours)
		bare := none.sandbox("meshed/bare")
		Expect(bare.add(ctx)).To(MatchError(ContainSubstring("no address")))
		Expect(bare.del(ctx)).To(Succeed())
		unmeshed := none.sandbox("elsewhere/bare")
		Expect(unmeshed.add(ctx)).To(Succeed())
		Expect(unmeshed.del(ctx)).To(Succeed())
		none.expectNothing(ctx)
		c.expectNothing(ctx)
	})

	It("lets loopback be", func(ctx SpecContext) {
		c := newChain(l, "a", "lo", loopback, ours)
		s := c.sandbox("elsewhere/x")
		_, err := c.libcni.AddNetworkList(ctx, c.list, s.runtime("lo"))
		Expect(err).NotTo(HaveOccurred())
		Expect(c.libcni.DelNetworkList(ctx, c.list, s.runtime("lo"))).To(Succeed())
	})

	It("collects exactly what the runtime has forgotten", func(ctx SpecContext) {
		c := newChain(l, "a", "net", bridge(subnet4), ours)
		stale, kept := c.sandbox("meshed/stale"), c.sandbox("meshed/kept")
		Expect(stale.add(ctx)).To(Succeed())
		Expect(kept.add(ctx)).To(Succeed())
		Expect(c.libcni.GCNetworkList(ctx, c.list, &libcni.GCArgs{ValidAttachments: []types.GCAttachment{
			{ContainerID: kept.id, IfName: "eth0"}}})).To(Succeed())
		all := l.workloads(ctx, "a")
		Expect(all).To(HaveKey("meshed/kept"))
		Expect(all).NotTo(HaveKey("meshed/stale"))
		Expect(answerOf(ctx, kept, to)).To(Equal("ping"))
		Expect(kept.del(ctx)).To(Succeed())
		c.expectNothing(ctx)
	})

	It("fails pods of the mesh, and no others, where nothing serves", func(ctx SpecContext) {
		c := newChain(l, "a", "net", bridge(subnet4), ours)
		state := filepath.Join(c.dir, "state")
		Expect(os.Mkdir(state, 0o700)).To(Succeed())
		Expect(os.WriteFile(filepath.Join(state, "decisions.json"), []byte(`{"version": 1, "pinDir": "`+l.pins("a")+`missing",
			"decisions": {"meshed": {"verdict": "mesh"}, "kube-system": {"verdict": "mesh"}}}`), 0o600)).To(Succeed())
		for i, plugin := range c.list.Plugins {
			if plugin.Network.Type == "evenkeel-cni" {
				text := []byte(`{"type": "evenkeel-cni", "pinDir": "` + l.pins("a") + `missing", "stateDir": "` + state +
					`", "runDir": "` + filepath.Join(c.dir, "run") + `", "exempt": ["kube-system"]}`)
				var err error
				c.list.Plugins[i], err = libcni.NetworkPluginConfFromBytes(text)
				Expect(err).NotTo(HaveOccurred())
			}
		}
		s := c.sandbox("meshed/web-0")
		var said *types.Error
		err := s.add(ctx)
		Expect(errors.As(err, &said)).To(BeTrue(), "%v", err)
		Expect(said.Code).To(Equal(types.ErrTryAgainLater))
		Expect(s.del(ctx)).To(Succeed())
		for _, pod := range []string{"kube-system/dns", "elsewhere/x"} {
			s := c.sandbox(pod)
			Expect(s.add(ctx)).To(Succeed())
			Expect(s.del(ctx)).To(Succeed())
		}
		Expect(c.libcni.GetStatusNetworkList(ctx, c.list)).To(MatchError(ContainSubstring("start the agent")))
		c.expectNothing(ctx)
	})
})

var _ = Describe("An agent that enrols by label", func() {
	const to = "10.96.0.10:7"

	It("takes running pods in and out, and leaves to other meshes what is theirs", func(ctx SpecContext) {
		l := newLab(ctx, byLabel(GinkgoT().TempDir())+`
  - {name: web, node: a, labels: {app: web}, serve: ["http :8080", "tcp :9000", "udp :9001"]}
  - {name: client, node: a, serve: ["tcp :1"]}
  - {name: opted-out, node: a, labels: {evenkeel.io/mesh: disabled}, serve: ["tcp :1"]}
  - {name: ambient, node: a, labels: {istio.io/dataplane-mode: ambient}, serve: ["tcp :1"]}
`)
		services := documents(webService("web", "10.96.0.10", "fd00:96::10"))
		l.put("web", services)
		l.expectPorts(ctx, "a", 6)
		swallow(ctx, l, "a", "7", "80")
		Expect(answerOf(ctx, l.pod("client"), to)).To(Equal("swallowed"))
		running := hold(ctx, l.pod("client"), "tcp="+at(l.addressOf("web", 4), 9000))
		namespace := func(label string) {
			l.put("namespace", "apiVersion: v1\nkind: Namespace\nmetadata: {name: default, labels: {evenkeel.io/mesh: "+label+"}}\n")
		}
		namespace("enabled")
		Eventually(ctx, func() string { return answerOf(ctx, l.pod("client"), to) }).Should(Equal("ping"))
		all := l.workloads(ctx, "a")
		Expect(all).To(HaveKeyWithValue("default/opted-out", HaveField("Enrolled", BeFalse())))
		Expect(all).To(HaveKeyWithValue("default/ambient", And(
			HaveField("Enrolled", BeFalse()), HaveField("Reason", ContainSubstring("istio ambient")))))
		Expect(answerOf(ctx, l.pod("opted-out"), to)).To(Equal("swallowed"))
		inside := hold(ctx, l.pod("client"), "tcp="+to)
		namespace("disabled")
		Eventually(ctx, func() string { return answerOf(ctx, l.pod("client"), to) }).Should(Equal("swallowed"))
		running.advance(ctx, 20)
		inside.advance(ctx, 20)
		inside.expectUnharmed()
		running.expectUnharmed()
	})
})
