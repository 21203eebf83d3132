// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/netsim"
	"github.com/evenkeel/evenkeel/netsim/inventory"
)

// One thing is left in a lab without any mesh, twenty times of each kind: the inventory has to name it, and nothing
// else, and to have what it had once it is taken away.
var _ = Describe("Sensitivity to leaks", Label("dataplane:none", "tier:pr"), Ordered, ContinueOnFailure, func() {
	const times = 20
	var lab *netsim.Lab
	BeforeAll(func(ctx SpecContext) {
		lab = newLab(ctx, `
  nodes:
  - {name: a, podCIDRs: [10.10.1.0/24]}
  pods:
  - {name: victim, node: a}
`)
	})

	DescribeTable("finds", func(ctx SpecContext, leak func(SpecContext, *netsim.Lab, int) (take func()), kinds ...inventory.Kind) {
		before := take(lab)
		for n := range times {
			undo := leak(ctx, lab, n)
			gone, added := inventory.Difference(before, take(lab))
			Expect(gone).To(BeEmpty())
			var got []inventory.Kind
			for _, o := range added {
				if o.Kind != inventory.Descriptor && o.Kind != inventory.Interface { // of a process, of a namespace
					got = append(got, o.Kind)
				}
			}
			Expect(got).To(ConsistOf(kinds), "%v", added)
			Expect(added.Alive(lab.Places())).NotTo(BeEmpty())
			undo()
			gone, added = inventory.Difference(before, take(lab))
			Expect(inventory.Lines(gone, added)).To(BeEmpty(), "it was taken away")
		}
		figure("caught", times, "")
	},
		Entry("a process", leakProcess, inventory.Process),
		Entry("a map that a process holds", leakMap, inventory.Process, inventory.Map),
		Entry("a pin", leakPin, inventory.Pin, inventory.Map),
		Entry("a network namespace", leakNamespace, inventory.Namespace, inventory.Mount),
		Entry("a cgroup", leakCgroup, inventory.Cgroup))

	It("finds what a lab that is down has left", func(ctx SpecContext) {
		for range times {
			m := newMap()
			places := netsim.Places{Dir: lab.Places().Dir + "-gone", Pins: lab.Places().Pins + "-gone",
				Cgroup: lab.Places().Cgroup + "-gone"}
			had := inventory.Inventory{{Kind: inventory.Map, Name: "leaked", Number: mapID(m)}}
			Expect(had.Alive(places)).To(Equal(had))
			Expect(m.Close()).To(Succeed())
			gone(ctx, places, had)
		}
	}, SpecTimeout(faultLimit))
})

// newMap makes a map that nothing but this process holds.
func newMap() *ebpf.Map {
	GinkgoHelper()
	m, err := ebpf.NewMap(&ebpf.MapSpec{Name: "leaked", Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	Expect(err).NotTo(HaveOccurred())
	return m
}

func mapID(m *ebpf.Map) uint64 {
	GinkgoHelper()
	info, err := m.Info()
	Expect(err).NotTo(HaveOccurred())
	id, _ := info.ID()
	return uint64(id)
}

func leakProcess(ctx SpecContext, lab *netsim.Lab, _ int) func() {
	GinkgoHelper()
	return leakHolder(ctx, lab)
}

func leakMap(ctx SpecContext, lab *netsim.Lab, _ int) func() {
	GinkgoHelper()
	m := newMap()
	fd, err := unix.Dup(m.FD())
	Expect(err).NotTo(HaveOccurred())
	Expect(m.Close()).To(Succeed())
	file := os.NewFile(uintptr(fd), "map")
	defer file.Close()
	return leakHolder(ctx, lab, file)
}

// leakHolder starts a process in a pod of the lab that does nothing but hold files.
func leakHolder(ctx SpecContext, lab *netsim.Lab, files ...*os.File) func() {
	GinkgoHelper()
	cmd := lab.Pod("victim").Command(ctx, "sh", "-c", "echo held; read _")
	cmd.ExtraFiles = files
	in, err := cmd.StdinPipe()
	Expect(err).NotTo(HaveOccurred())
	out, err := cmd.StdoutPipe()
	Expect(err).NotTo(HaveOccurred())
	Expect(cmd.Start()).To(Succeed())
	_, err = out.Read(make([]byte, 1)) // it is what it will be
	Expect(err).NotTo(HaveOccurred())
	return func() {
		Expect(in.Close()).To(Succeed())
		_ = cmd.Wait() // sh ends with 1 at the end of its input
	}
}

func leakPin(_ SpecContext, lab *netsim.Lab, n int) func() {
	GinkgoHelper()
	m := newMap()
	path := filepath.Join(lab.Places().Pins, fmt.Sprint("leaked-", n))
	Expect(m.Pin(path)).To(Succeed())
	Expect(m.Close()).To(Succeed())
	return func() { Expect(os.Remove(path)).To(Succeed()) }
}

func leakNamespace(_ SpecContext, lab *netsim.Lab, n int) func() {
	GinkgoHelper()
	path := filepath.Join(lab.Places().Namespaces, fmt.Sprint("leaked-", n))
	Expect(os.WriteFile(path, nil, 0o444)).To(Succeed())
	Expect(netsim.Within(lab.Node("a").Netns, func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		return unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
	})).To(Succeed())
	return func() {
		Expect(unix.Unmount(path, unix.MNT_DETACH)).To(Succeed())
		Expect(os.Remove(path)).To(Succeed())
	}
}

func leakCgroup(_ SpecContext, lab *netsim.Lab, n int) func() {
	GinkgoHelper()
	path := filepath.Join(lab.Places().Cgroup, fmt.Sprint("leaked-", n))
	Expect(os.Mkdir(path, 0o755)).To(Succeed())
	return func() { Expect(os.Remove(path)).To(Succeed()) }
}
