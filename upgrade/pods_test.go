// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"context"
	"errors"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// inNamespace runs a test function in a network namespace of its own, which is gone afterwards, and hands it a
// descriptor of that namespace.
func inNamespace(t *testing.T, do func(netns int)) {
	t.Helper()
	elsewhere(t, func() error { return unix.Unshare(unix.CLONE_NEWNET) }, do)
}

// elsewhere runs a test function in the network namespace that its thread enters, and hands it a descriptor of that. The
// thread comes back: if it ended, the kernel would kill every child that it started.
func elsewhere(t *testing.T, enter func() error, do func(netns int)) {
	t.Helper()
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	if err := enter(); err != nil {
		privilege(t, err)
	}
	defer func() {
		if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
			t.Errorf("return from namespace: %v", err)
			return // and leave the thread locked: it is of no use to anybody else
		}
		runtime.UnlockOSThread()
	}()
	ns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	do(int(ns.Fd()))
}

// addInterface makes an interface in the namespace of this thread and returns its index.
func addInterface(t *testing.T, name string) int {
	t.Helper()
	l := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "-peer"}
	if err := netlink.LinkAdd(l); err != nil {
		t.Fatalf("add interface: %v", err)
	}
	made, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return made.Attrs().Index
}

func mustAttached(t *testing.T, p *Pods, pod string) map[string]Attached {
	t.Helper()
	list, err := p.Attached(pod)
	if err != nil {
		t.Error(err)
	}
	all := make(map[string]Attached)
	for _, a := range list {
		all[a.Hook] = a
	}
	return all
}

func TestAttachDetachPod(t *testing.T) {
	b := newBed(t)
	s := b.open(t, _TinyBytes)
	inNamespace(t, func(ns int) {
		index := addInterface(t, "eth0")
		targets := []Target{{Pod: "a", Hook: "lookup", Netns: ns}, {Pod: "a", Hook: "tcx", Interface: index}}
		var first map[string]Attached
		for range 3 { // again and again it is the same link
			for _, target := range targets {
				if err := s.Pods.Attach(t.Context(), target); err != nil {
					t.Fatal(err)
				}
			}
			now := mustAttached(t, s.Pods, "a")
			if first == nil {
				first = now
			}
			if diff := cmp.Diff(first, now); diff != "" || len(now) != 2 {
				t.Errorf("links (-first +now):\n%s", diff)
			}
		}
		if first["lookup"].Netns == 0 || first["tcx"].Interface != index || first["tcx"].Defunct {
			t.Errorf("attached: %+v", first)
		}
		if pods, err := s.Pods.List(); err != nil || len(pods) != 1 || pods[0] != "a" {
			t.Errorf("pods: %v, %v", pods, err)
		}
		if err := s.Pods.Detach(t.Context(), "a", "tcx", "nothing"); err != nil {
			t.Error(err)
		}
		if now := mustAttached(t, s.Pods, "a"); len(now) != 1 || now["lookup"].Link != first["lookup"].Link {
			t.Errorf("after tcx was detached: %+v", now)
		}
		for range 2 {
			if err := s.Pods.Detach(t.Context(), "a"); err != nil {
				t.Error(err)
			}
		}
		if pods, err := s.Pods.List(); err != nil || len(pods) != 0 {
			t.Errorf("pods: %v, %v", pods, err)
		}
	})
	b.sound(t)
}

// The tcx program comes before one that was there, and packets go on to it.
func TestTcxComesFirst(t *testing.T) {
	b := newBed(t)
	s := b.open(t, _TinyBytes)
	inNamespace(t, func(int) {
		index := addInterface(t, "eth0")
		theirs := intruderProgram(t, ebpf.SchedCLS, ebpf.AttachTCXIngress)
		defer theirs.Close()
		l, err := link.AttachTCX(link.TCXOptions{Interface: index, Program: theirs, Attach: ebpf.AttachTCXIngress})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if err := s.Pods.Attach(t.Context(), Target{Pod: "a", Hook: "tcx", Interface: index}); err != nil {
			t.Fatal(err)
		}
		order, err := link.QueryPrograms(link.QueryOptions{Target: index, Attach: ebpf.AttachTCXIngress})
		if err != nil {
			t.Fatal(err)
		}
		if len(order.Programs) != 2 || order.Programs[0].ID != programID(s.view.entries["tcx"]) {
			t.Errorf("programs in order: %+v", order.Programs)
		}
	})
}

// A link to what is gone, or to another target, is replaced by one that is attached before the old one goes.
func TestPodIsReattachedWithoutGap(t *testing.T) {
	b := newBed(t)
	s := b.open(t, _TinyBytes)
	var steps []Step
	s.Pods.journal.trace = func(step Step, _ string) { steps = append(steps, step) }
	var old map[string]Attached
	inNamespace(t, func(ns int) {
		one, two := addInterface(t, "one"), addInterface(t, "two")
		attach := func(hook string, index int) {
			if err := s.Pods.Attach(t.Context(), Target{Pod: "a", Hook: hook, Netns: ns, Interface: index}); err != nil {
				t.Fatal(err)
			}
		}
		attach("lookup", 0)
		attach("tcx", one)
		attach("tcx", two)
		if now := mustAttached(t, s.Pods, "a"); now["tcx"].Interface != two {
			t.Errorf("attached to %+v, not to interface %d", now["tcx"], two)
		}
		want := []Step{
			StepMakeDirectory, StepAttach, StepPinLink, StepAttach, StepPinLink, // the first of each
			StepAttach, StepPinLink, StepReplaceLink,
		}
		if diff := cmp.Diff(want, steps); diff != "" {
			t.Errorf("steps (-want +got):\n%s", diff)
		}
		old = mustAttached(t, s.Pods, "a")
	})
	eventually(t, "the links are defunct", func() bool {
		now := mustAttached(t, s.Pods, "a")
		return now["lookup"].Defunct && now["tcx"].Defunct
	})
	if state := b.inspect(t); state.PodsDefunct != 1 || state.PodLinks != 2 || state.Pods != 1 {
		t.Errorf("state: %d pods, %d links, %d defunct", state.Pods, state.PodLinks, state.PodsDefunct)
	}
	inNamespace(t, func(ns int) {
		index := addInterface(t, "one")
		for _, hook := range []string{"lookup", "tcx"} {
			if err := s.Pods.Attach(t.Context(), Target{Pod: "a", Hook: hook, Netns: ns, Interface: index}); err != nil {
				t.Fatal(err)
			}
		}
		for hook, a := range mustAttached(t, s.Pods, "a") {
			if a.Defunct || a.Link == old[hook].Link {
				t.Errorf("%s is still the old link: %+v", hook, a)
			}
		}
	})
}

func TestAttachRefuses(t *testing.T) {
	b := newBed(t)
	s := b.open(t, _TinyBytes)
	for what, target := range map[string]Target{
		"a pod with a dot":           {Pod: "a.b", Hook: "lookup", Netns: 0},
		"a pod without a name":       {Hook: "lookup"},
		"a name of what is built":    {Pod: "a_new", Hook: "lookup"},
		"a path":                     {Pod: "../maps", Hook: "lookup"},
		"a hook that there is not":   {Pod: "a", Hook: "nothing"},
		"a hook of the whole node":   {Pod: "a", Hook: "connect4"},
		"no interface":               {Pod: "a", Hook: "tcx"},
		"an interface that is not":   {Pod: "a", Hook: "tcx", Interface: 1 << 30},
		"no descriptor":              {Pod: "a", Hook: "lookup", Netns: -1},
		"a descriptor of a terminal": {Pod: "a", Hook: "lookup", Netns: int(os.Stdin.Fd())},
	} {
		if err := s.Pods.Attach(t.Context(), target); err == nil {
			t.Errorf("%s was accepted", what)
		} else {
			t.Logf("%s: %v", what, err)
		}
	}
	if state := b.inspect(t); state.PodLinks != 0 {
		t.Errorf("%d links were left", state.PodLinks)
	}
}

// A link that is not ours is not replaced.
func TestAttachLeavesWhatIsForeign(t *testing.T) {
	b := newBed(t)
	s := b.open(t, _TinyBytes)
	inNamespace(t, func(ns int) {
		theirs := intruderProgram(t, ebpf.SkLookup, ebpf.AttachSkLookup)
		defer theirs.Close()
		l, err := link.AttachNetNs(ns, theirs)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if err := os.Mkdir(b.dir+"/links/pods/a", 0o700); err != nil {
			t.Fatal(err)
		}
		if err := l.Pin(b.dir + "/links/pods/a/lookup"); err != nil {
			t.Fatal(err)
		}
		var damage *DamageError
		if err := s.Pods.Attach(t.Context(), Target{Pod: "a", Hook: "lookup", Netns: ns}); !errors.As(err, &damage) {
			t.Errorf("a foreign link: %v", err)
		}
		if err := s.Pods.Detach(t.Context(), "a"); !errors.As(err, &damage) {
			t.Errorf("a foreign link was detached: %v", err)
		}
		if now := mustAttached(t, s.Pods, "a"); now["lookup"].Program != programID(theirs) {
			t.Errorf("it was replaced: %+v", now)
		}
	})
}

// Agent and plugin work on the same pod at once: whatever the order, the pod ends up attached once, or not at all.
func TestAttachAndDetachAtOnce(t *testing.T) {
	b := newBed(t)
	s := b.open(t, _TinyBytes)
	w, err := OpenWriter(t.Context(), b.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	inNamespace(t, func(ns int) {
		index := addInterface(t, "eth0") // which the test's own thread attaches, for the others are not in here
		for range 20 {
			if err := s.Pods.Attach(t.Context(), Target{Pod: "b", Hook: "tcx", Interface: index}); err != nil {
				t.Error(err)
			}
			if err := w.Pods.Detach(t.Context(), "b"); err != nil {
				t.Error(err)
			}
		}
		var group sync.WaitGroup
		for _, p := range []*Pods{s.Pods, w.Pods, s.Pods, w.Pods} {
			group.Go(func() {
				for i := range 50 {
					if err := p.Attach(t.Context(), Target{Pod: "a", Hook: "lookup", Netns: ns}); err != nil {
						t.Error(err)
					}
					if i%2 == 0 {
						if err := p.Detach(t.Context(), "a"); err != nil {
							t.Error(err)
						}
					}
				}
			})
		}
		group.Wait()
		if now := mustAttached(t, s.Pods, "a"); len(now) > 1 {
			t.Errorf("attached: %+v", now)
		}
		for range 2 {
			if err := s.Pods.Attach(t.Context(), Target{Pod: "a", Hook: "lookup", Netns: ns}); err != nil {
				t.Error(err)
			}
		}
		programs, err := link.QueryPrograms(link.QueryOptions{Target: ns, Attach: ebpf.AttachSkLookup})
		if err != nil || len(programs.Programs) != 1 {
			t.Errorf("programs in the namespace: %+v, %v", programs, err)
		}
	})
}

// Whoever has the lock of a pod does several things as one; what he leaves is the links, or nothing.
func TestLockOfAPod(t *testing.T) {
	b := newBed(t)
	s := b.open(t, _TinyBytes)
	w, err := OpenWriter(t.Context(), b.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	inNamespace(t, func(ns int) {
		target := Target{Pod: "a", Hook: "lookup", Netns: ns}
		for _, links := range []int{1, 0} {
			d, err := s.Pods.Lock(t.Context(), "a")
			if err != nil {
				t.Fatal(err)
			}
			brief, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			if _, err := w.Pods.Lock(brief, "a"); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("a second lock: %v", err)
			}
			if err := w.Pods.Attach(brief, target); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("attach beside a lock: %v", err)
			}
			if err := w.Pods.Detach(brief, "a"); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("detach beside a lock: %v", err)
			}
			if err := d.Attach(t.Context(), target); err != nil {
				t.Error(err)
			}
			if links == 0 {
				err = d.Detach()
			}
			for range 2 {
				err = errors.Join(err, d.Close())
			}
			if err != nil {
				t.Error(err)
			}
			if state := b.inspect(t); state.PodLinks != links || state.Pods != links {
				t.Errorf("%d links of %d pods are left, want %d", state.PodLinks, state.Pods, links)
			}
		}
	})
}
