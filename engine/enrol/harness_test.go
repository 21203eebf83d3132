// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"context"
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
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
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

// kernelLinks attaches real programs, which do nothing, and keeps the links open in place of pins.
type kernelLinks struct {
	mu       sync.Mutex
	programs map[string]*ebpf.Program
	links    map[string]map[string]link.Link
	locks    map[string]chan struct{}
	fail     string // hook that cannot be attached
	free     bool   // a lock keeps nobody out
	// between is called once, after somebody has looked at what is attached; what it returns is what he is told.
	between func() error
	waiting chan struct{} // somebody waits for a lock
}

func newLinks(t testing.TB) *kernelLinks {
	t.Helper()
	k := &kernelLinks{
		programs: make(map[string]*ebpf.Program), links: make(map[string]map[string]link.Link),
		locks: make(map[string]chan struct{}), waiting: make(chan struct{}, 1),
	}
	for hook, spec := range map[string]*ebpf.ProgramSpec{
		hookLookup(): {Type: ebpf.SkLookup, AttachType: ebpf.AttachSkLookup, Instructions: returning(1)},
		hookTcx():    {Type: ebpf.SchedCLS, AttachType: ebpf.AttachTCXIngress, Instructions: returning(-1)},
	} {
		spec.License = "GPL"
		p, err := ebpf.NewProgram(spec)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.Close() })
		k.programs[hook] = p
	}
	t.Cleanup(func() {
		for id := range k.links {
			if err := k.Detach(t.Context(), id); err != nil {
				t.Error(err)
			}
		}
	})
	return k
}

func returning(n int32) asm.Instructions {
	return asm.Instructions{asm.Mov.Imm(asm.R0, n), asm.Return()}
}

// Lock waits for others, as the real one does; with free it does not, which the tests of the lock must notice.
func (k *kernelLinks) Lock(ctx context.Context, pod string) (PodLinks, error) {
	k.mu.Lock()
	if k.locks[pod] == nil {
		k.locks[pod] = make(chan struct{}, 1)
	}
	lock := k.locks[pod]
	k.mu.Unlock()
	if k.free {
		return &lockedLinks{k, pod, func() {}}, nil
	}
	locked := &lockedLinks{k, pod, sync.OnceFunc(func() { <-lock })}
	select {
	case lock <- struct{}{}:
		return locked, nil
	default:
	}
	select {
	case k.waiting <- struct{}{}:
	default:
	}
	select {
	case lock <- struct{}{}:
		return locked, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// lockedLinks are those of one pod.
type lockedLinks struct {
	*kernelLinks
	pod    string
	unlock func()
}

func (l *lockedLinks) Detach(hooks ...string) error {
	return l.kernelLinks.Detach(context.Background(), l.pod, hooks...)
}

func (l *lockedLinks) Close() error {
	l.unlock()
	return nil
}

func (l *lockedLinks) Attach(_ context.Context, a Attachment) error {
	k := l.kernelLinks
	k.mu.Lock()
	defer k.mu.Unlock()
	if a.Hook == k.fail {
		return errors.New("it was told to fail")
	}
	if old := k.links[l.pod][a.Hook]; old != nil {
		old.Close()
	}
	var made link.Link
	var err error
	if a.Hook == hookLookup() {
		made, err = link.AttachNetNs(a.Netns, k.programs[a.Hook])
	} else {
		made, err = link.AttachTCX(link.TCXOptions{
			Interface: a.Interface, Program: k.programs[a.Hook], Attach: ebpf.AttachTCXIngress,
		})
	}
	if err != nil {
		return err
	}
	if k.links[l.pod] == nil {
		k.links[l.pod] = make(map[string]link.Link)
	}
	k.links[l.pod][a.Hook] = made
	return nil
}

func (k *kernelLinks) Attached(pod string) ([]Link, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var all []Link
	for hook, l := range k.links[pod] {
		info, err := l.Info()
		if err != nil {
			return nil, err
		}
		found := Link{Hook: hook}
		if ns := info.NetNs(); ns != nil {
			found.Netns, found.Defunct = uint64(ns.NetnsInode), ns.NetnsInode == 0
		}
		if tcx := info.TCX(); tcx != nil {
			found.Interface, found.Defunct = int(tcx.Ifindex), tcx.Ifindex == 0
		}
		all = append(all, found)
	}
	if between := k.between; between != nil {
		k.between = nil
		k.mu.Unlock()
		defer k.mu.Lock()
		return all, between()
	}
	return all, nil
}

func (k *kernelLinks) Detach(_ context.Context, pod string, hooks ...string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(hooks) == 0 {
		hooks = []string{hookLookup(), hookTcx()}
	}
	for _, hook := range hooks {
		if l := k.links[pod][hook]; l != nil {
			if err := l.Close(); err != nil {
				return err
			}
			delete(k.links[pod], hook)
		}
	}
	if len(k.links[pod]) == 0 {
		delete(k.links, pod)
	}
	return nil
}

func (k *kernelLinks) Pods() ([]string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var all []string
	for id := range k.links {
		all = append(all, id)
	}
	return all, nil
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
