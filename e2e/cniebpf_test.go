// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/plugins/pkg/ns"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/vishvananda/netlink"

	"github.com/evenkeel/evenkeel/e2e/client/report"
)

// network is what the plugins before ours have made of a sandbox: its address, and its interface on the node.
type network struct {
	prev    json.RawMessage
	address netip.Addr
	veth    int
}

// connected makes the network of a sandbox by the chain's plugins, ours not among them.
func (s *sandbox) connected(ctx SpecContext) network {
	GinkgoHelper()
	made, err := s.libcni.AddNetworkList(ctx, s.list, s.runtime("eth0"))
	Expect(err).NotTo(HaveOccurred())
	result, err := types100.NewResultFromResult(made)
	Expect(err).NotTo(HaveOccurred())
	Expect(result.IPs).To(HaveLen(1))
	n := network{address: netip.MustParseAddr(result.IPs[0].Address.IP.String())}
	n.prev, err = json.Marshal(made)
	Expect(err).NotTo(HaveOccurred())
	for _, i := range result.Interfaces {
		if i.Sandbox == "" && i.Name != "cni0" {
			Expect(s.onNode(func() error {
				found, err := netlink.LinkByName(i.Name)
				if err == nil {
					n.veth = found.Attrs().Index
				}
				return err
			})).To(Succeed())
		}
	}
	Expect(n.veth).NotTo(BeZero(), "%+v", result)
	return n
}

func (c *chain) onNode(do func() error) error {
	return ns.WithNetNSPath(c.l.Node(c.node).Netns, func(ns.NetNS) error { return do() })
}

// shortcut does at a pod's interface what eBPF primaries do: a packet for another pod goes straight into that one's
// namespace, past the node's stack and past every program behind this one. It counts them.
func (s *sandbox) shortcut(from, to network) (counted func() uint32) {
	GinkgoHelper()
	counts, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	Expect(err).NotTo(HaveOccurred())
	const destination = 14 + 16 // of an IPv4 header behind an Ethernet header
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "shortcut", Type: ebpf.SchedCLS, AttachType: ebpf.AttachTCXIngress, License: "GPL",
		Instructions: asm.Instructions{
			asm.Mov.Reg(asm.R6, asm.R1),
			asm.LoadAbs(destination, asm.Word),
			asm.JNE.Imm32(asm.R0, int32(binary.BigEndian.Uint32(to.address.AsSlice())), "next"),
			asm.StoreImm(asm.RFP, -4, 0, asm.Word),
			asm.LoadMapPtr(asm.R1, counts.FD()),
			asm.Mov.Reg(asm.R2, asm.RFP),
			asm.Add.Imm(asm.R2, -4),
			asm.FnMapLookupElem.Call(),
			asm.JEq.Imm(asm.R0, 0, "next"),
			asm.Mov.Imm(asm.R1, 1),
			asm.StoreXAdd(asm.R0, asm.R1, asm.Word),
			asm.Mov.Imm(asm.R1, int32(to.veth)),
			asm.Mov.Imm(asm.R2, 0),
			asm.FnRedirectPeer.Call(),
			asm.Return(),
			asm.Mov.Imm(asm.R0, -1).WithSymbol("next"), // TCX_NEXT
			asm.Return(),
		},
	})
	Expect(err).NotTo(HaveOccurred())
	var attached link.Link
	Expect(s.onNode(func() error {
		attached, err = link.AttachTCX(link.TCXOptions{Interface: from.veth, Program: program, Attach: ebpf.AttachTCXIngress})
		return err
	})).To(Succeed())
	DeferCleanup(func() {
		Expect(attached.Close()).To(Succeed())
		Expect(program.Close()).To(Succeed())
		Expect(counts.Close()).To(Succeed())
	})
	return func() (n uint32) {
		GinkgoHelper()
		Expect(counts.Lookup(uint32(0), &n)).To(Succeed())
		return n
	}
}

// A stand-in for a primary that works by eBPF. Its programs are at the interfaces before ours come.
var _ = Describe("Behind a primary plugin that works by eBPF", func() {
	It("pods are in the mesh, and no shortcut leads around the check of their sources", func(ctx SpecContext) {
		l := newLab(ctx, byLabel(GinkgoT().TempDir()))
		l.put("namespaces", meshedNamespaces)
		Eventually(func() bool { return exists(l.pins("a") + "_decisions1") }).Should(BeTrue())
		c := newChain(l, "a", "net", ptp(subnet4))
		client, server := c.sandbox("meshed/client"), c.sandbox("meshed/server")
		near, far := client.connected(ctx), server.connected(ctx)
		there, back := client.shortcut(near, far), server.shortcut(far, near)
		for s, n := range map[*sandbox]network{client: near, server: far} {
			got, _, _ := s.alone(ctx, "ADD", n.prev, nil)
			Expect(got.code).To(BeZero(), "%+v", got)
			got, _, _ = s.alone(ctx, "CHECK", n.prev, nil)
			Expect(got.code).To(BeZero(), "%+v", got)
		}
		l.put("far", documents(service{name: "far", addresses: []string{"10.96.0.10"}, ports: echoPorts[:1]})+fmt.Sprintf(`---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: far, namespace: default, labels: {kubernetes.io/service-name: far}}
addressType: IPv4
ports: [{name: tcp, port: 9000, protocol: TCP}]
endpoints: [{addresses: ["%s"], conditions: {ready: true}}]
`, far.address))
		listener := start[report.Listening](ctx, server, "swallow", "9000")
		Eventually(ctx, listener.seen).ShouldNot(BeEmpty(), "the server listens")
		Eventually(ctx, func() string { return answerOf(ctx, client, "10.96.0.10:7") }).Should(Equal("swallowed"))
		Expect(there()).NotTo(BeZero(), "the shortcut is taken")
		Expect(back()).NotTo(BeZero(), "and on the way back")

		taken, refused := there(), l.counter(ctx, "a", "refused_source")
		ask[report.Attempt](ctx, client, "forge", "-from", "192.0.2.9:5353", "-count=10", at(far.address.String(), 9))
		Expect(l.counter(ctx, "a", "refused_source")).To(Equal(refused + 10))
		Expect(there()).To(Equal(taken), "what is forged does not come to the shortcut")
		ask[report.Attempt](ctx, client, "forge", "-from", at(near.address.String(), 5353), "-count=10", at(far.address.String(), 9))
		Expect(there()).To(BeNumerically(">=", taken+10), "what is honest does")

		for s, n := range map[*sandbox]network{client: near, server: far} {
			got, _, _ := s.alone(ctx, "DEL", n.prev, nil)
			Expect(got).To(Equal(result{}))
			Expect(s.del(ctx)).To(Succeed())
		}
		c.expectNothing(ctx)
	})

	It("that chooses endpoints first, a pod of the mesh fails by that one's name, and no other", func(ctx SpecContext) {
		dir := GinkgoT().TempDir()
		l := newLab(ctx, byLabel(dir)+`
  - {name: web, node: a, labels: {app: web}, serve: ["tcp :9000"]}
`)
		l.put("web", documents(service{name: "web", addresses: []string{"10.96.0.10"}, ports: echoPorts[:1],
			more: []string{"selector: {app: web}"}})+meshedNamespaces)
		Expect(l.stopAgent(ctx, "a", syscall.SIGKILL)).NotTo(Succeed())
		Expect(l.evenkeel(ctx, "a", "uninstall", "--yes").code).To(BeZero())
		attachBalancer(l, "cil_sock4_conne", "10.96.0.10:7", at(l.addressOf("web", 4), 9000))
		l.startAgent(ctx, "a")
		Eventually(func() bool { return exists(l.pins("a") + "_decisions1") }).Should(BeTrue())
		c := newChain(l, "a", "net", bridge(subnet4), ours)
		s := c.sandbox("meshed/p")
		err := s.add(ctx)
		var said *types.Error
		Expect(errors.As(err, &said)).To(BeTrue(), "%v", err)
		Expect(said.Code).To(BeEquivalentTo(100))
		Expect(said.Error()).To(ContainSubstring("Cilium"))
		Expect(s.del(ctx)).To(Succeed())
		other := c.sandbox("elsewhere/p")
		Expect(other.add(ctx)).To(Succeed())
		Expect(answerOf(ctx, other, "10.96.0.10:7")).To(Equal("ping"), "the other balancer serves it")
		Expect(other.del(ctx)).To(Succeed())
		c.expectNothing(ctx)
	})
})
