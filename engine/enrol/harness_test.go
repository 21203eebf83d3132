// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/bpf"
)

const insideVariable = "EVENKEEL_ENROL_TEST_NODE"

// TestMain runs the tests once more, in network and mount namespaces of their own, which are the node's: what they make
// ends with them. Without privilege they run here, and those that need it skip.
func TestMain(m *testing.M) {
	if os.Geteuid() != 0 || os.Getenv(insideVariable) != "" {
		os.Exit(m.Run())
	}
	again := exec.Command("/proc/self/exe", os.Args[1:]...)
	again.Env = append(os.Environ(), insideVariable+"=1")
	again.Stdin, again.Stdout, again.Stderr = os.Stdin, os.Stdout, os.Stderr
	again.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	err := again.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(exit.ExitCode())
	case err != nil:
		fmt.Fprintln(os.Stderr, "run the tests in namespaces of their own:", err)
		os.Exit(1)
	}
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Getenv(insideVariable) != "" {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("needs root")
	}
	t.Skip("needs root")
}

// newNetns makes a network namespace with a file, as CNI has it. It lives until the end of the test, or until drop.
func newNetns(t testing.TB) (path string, drop func()) {
	t.Helper()
	needRoot(t)
	path = filepath.Join(t.TempDir(), "netns")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := bindNewNetns(path); err != nil {
		t.Fatal(err)
	}
	drop = sync.OnceFunc(func() {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
		os.Remove(path)
	})
	t.Cleanup(drop)
	return path, drop
}

// bindNewNetns makes a namespace, and the file at path lead to it. The thread that was in it ends.
func bindNewNetns(path string) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() { // which would not end
			err := bindNewNetns(path)
			runtime.UnlockOSThread()
			done <- err
			return
		}
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		done <- unix.Mount(selfNetns, path, "", unix.MS_BIND, "")
	}()
	return <-done
}

// pod is a network namespace with a veth to the node.
type pod struct {
	path string
	drop func()
	host int
}

// newPod makes a pod whose interface eth0 has these addresses.
func newPod(t testing.TB, addresses ...string) pod {
	t.Helper()
	p := pod{}
	p.path, p.drop = newNetns(t)
	p.host = addVeth(t, "", p.path, "eth0", addresses...)
	return p
}

var veths int

// addVeth makes an interface in the namespace at pod and its other end in the one at node, the test's own if that is
// empty, and returns the index of that end.
func addVeth(t testing.TB, node, pod, name string, addresses ...string) int {
	t.Helper()
	veths++
	ns, err := openNetns(pod)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	host := 0
	add := func() error {
		veth := &netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: fmt.Sprintf("veth%d", veths)}, PeerName: name,
			PeerNamespace: netlink.NsFd(int(ns.Fd())),
		}
		if err := netlink.LinkAdd(veth); err != nil {
			return err
		}
		l, err := netlink.LinkByName(veth.Name)
		if err != nil {
			return err
		}
		host = l.Attrs().Index
		return nil
	}
	if node == "" {
		err = add()
	} else {
		err = at(node, add)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		addAddress(t, pod, name, a)
	}
	return host
}

// at runs do in the namespace at path.
func at(path string, do func() error) error {
	ns, err := openNetns(path)
	if err != nil {
		return err
	}
	defer ns.Close()
	return inside(ns, do)
}

func inPod(t testing.TB, path string, do func() error) {
	t.Helper()
	if err := at(path, do); err != nil {
		t.Fatal(err)
	}
}

func addAddress(t testing.TB, path, name, address string) {
	t.Helper()
	inPod(t, path, func() error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		a, err := netlink.ParseAddr(address)
		if err != nil {
			return err
		}
		a.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrAdd(l, a); err != nil {
			return err
		}
		return netlink.LinkSetUp(l)
	})
}

// newOptions makes maps with room for that many workloads.
func newOptions(t testing.TB, workloads uint32) (Options, *kernelLinks) {
	t.Helper()
	needRoot(t)
	spec, err := bpf.Spec()
	if err != nil {
		t.Fatal(err)
	}
	sizes := bpf.DefaultSizes()
	sizes.Workloads = workloads
	maps := make(map[string]*ebpf.Map)
	for _, name := range []string{mapWorkloads, mapNames} {
		spec.Maps[name].MaxEntries = sizes.MaxEntries()[name]
		m, err := ebpf.NewMap(spec.Maps[name])
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { m.Close() })
		maps[name] = m
	}
	links := newLinks(t)
	return Options{
		Maps: Maps{Workloads: maps[mapWorkloads], Names: maps[mapNames]}, Links: links, SourceCheck: true,
	}, links
}

// elements counts what is in the maps.
func elements(t testing.TB, maps Maps) (n int) {
	t.Helper()
	for _, m := range []*ebpf.Map{maps.Workloads, maps.Names} {
		key, value := make([]byte, m.KeySize()), make([]byte, m.ValueSize())
		it := m.Iterate()
		for it.Next(&key, &value) {
			n++
		}
		if it.Err() != nil {
			t.Fatal(it.Err())
		}
	}
	return n
}
