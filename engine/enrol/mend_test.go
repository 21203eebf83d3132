// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/bpf"
)

func mustCheck(t testing.TB, o Options) Health {
	t.Helper()
	h, err := Check(o)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// mustMend makes sure that what is wrong is found, and returns what was done about it.
func mustMend(t testing.TB, o Options) []string {
	t.Helper()
	if mustCheck(t, o).Well() {
		t.Fatal("what is wrong was not found")
	}
	all, err := Mend(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, m := range all {
		if m.Err != nil {
			lines = append(lines, fmt.Sprintf("%s: %v", m.Workload.Name, m.Err))
		} else {
			lines = append(lines, m.Workload.Name+" "+m.Done)
		}
	}
	return lines
}

// waitGone waits until the kernel has taken a namespace down, which it does in the background.
func waitGone(t testing.TB, links *kernelLinks, cookie uint64) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond) // there is nothing to wait on but the link
	defer tick.Stop()
	for begin := time.Now(); time.Since(begin) < 10*time.Second; <-tick.C {
		all, err := links.Attached(linksID(cookie))
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(all, func(l Link) bool { return l.Hook == hookLookup() && l.Defunct }) {
			return
		}
	}
	t.Fatal("the namespace does not go")
}

func TestMendWithdrawsWhatIsGone(t *testing.T) {
	o, links := newOptions(t, 10)
	gone, stays := newPod(t, "10.9.0.1/32"), newPod(t, "10.9.0.2/32")
	r := mustEnrol(t, o, Pod{Name: "a/gone", Netns: gone.path})
	mustEnrol(t, o, Pod{Name: "a/stays", Netns: stays.path})
	if h := mustCheck(t, o); !h.Well() {
		t.Fatalf("found %+v", h)
	}
	gone.drop()
	waitGone(t, links, r.Cookie)
	if done := mustMend(t, o); len(done) != 1 || done[0] != "a/gone withdrawn" {
		t.Errorf("done %q", done)
	}
	if all := mustList(t, o); len(all) != 1 || all[0].Name != "a/stays" {
		t.Errorf("enrolled %+v", all)
	}
	if h := mustCheck(t, o); !h.Well() {
		t.Errorf("left %+v", h)
	}
}

func TestMendAttachesAgain(t *testing.T) {
	o, links := newOptions(t, 10)
	p := newPod(t, "10.9.0.1/32")
	r := mustEnrol(t, o, Pod{Name: "a/b", Netns: p.path})
	for _, hook := range []string{hookLookup(), hookTcx()} {
		before := mustList(t, o)
		if err := links.Detach(t.Context(), linksID(r.Cookie), hook); err != nil {
			t.Fatal(err)
		}
		if h := mustCheck(t, o); len(h.Broken) != 1 || !strings.Contains(h.Broken[0].Why, hook) {
			t.Errorf("found %+v", h)
		}
		if done := mustMend(t, o); len(done) != 1 || done[0] != "a/b attached again" {
			t.Errorf("done %q", done)
		}
		if h := mustCheck(t, o); !h.Well() {
			t.Errorf("left %+v", h)
		}
		if after := mustList(t, o); len(after) != 1 || after[0] != before[0] {
			t.Errorf("was %+v, is %+v", before, after)
		}
	}
}

// detach takes a link of a pod off its target and leaves the link, as bpftool link detach does.
func (k *kernelLinks) detach(t testing.TB, pod, hook string) {
	t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	l, ok := k.links[pod][hook].(interface{ Detach() error })
	if !ok {
		t.Fatalf("the link of %s cannot be detached", hook)
	}
	if err := l.Detach(); err != nil {
		t.Fatal(err)
	}
}

// enter starts a process in a pod, and returns the path of its namespace and what ends it.
func enter(t testing.TB, p pod) (path string, leave func()) {
	t.Helper()
	process := exec.Command("sleep", "60")
	inPod(t, p.path, process.Start)
	leave = sync.OnceFunc(func() {
		_ = process.Process.Kill() // or it has ended
		_ = process.Wait()         // it was killed
	})
	t.Cleanup(leave)
	return fmt.Sprintf("/proc/%d/ns/net", process.Process.Pid), leave
}

// TestMendTellsDetachedFromGone: to the link it is all the same whether its namespace ended or somebody detached it. A
// pod that lives must not be withdrawn for that, by whatever path it was enrolled.
func TestMendTellsDetachedFromGone(t *testing.T) {
	nothing := func() {}
	unmount := func(t *testing.T, p pod) {
		t.Helper()
		if err := unix.Unmount(p.path, unix.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name string
		// by is the path to enrol by, then what happens to the pod after.
		by   func(t *testing.T, p pod) (path string, then func())
		done string
	}{
		{"nothing went", func(_ *testing.T, p pod) (string, func()) { return p.path, nothing }, "a/b attached again"},
		{"enrolled by a process", func(t *testing.T, p pod) (string, func()) {
			path, _ := enter(t, p)
			return path, nothing
		}, "a/b attached again"},
		{"enrolled by a process that went, another is there", func(t *testing.T, p pod) (string, func()) {
			path, leave := enter(t, p)
			enter(t, p)
			return path, func() { leave(); p.drop() }
		}, "a/b attached again"},
		{"the path went, a process is there", func(t *testing.T, p pod) (string, func()) {
			enter(t, p)
			return p.path, p.drop
		}, "a/b attached again"},
		{"the path went", func(_ *testing.T, p pod) (string, func()) { return p.path, p.drop }, "a/b withdrawn"},
		{"the path leads to another namespace", func(t *testing.T, p pod) (string, func()) {
			return p.path, func() {
				unmount(t, p)
				if err := bindNewNetns(p.path); err != nil {
					t.Fatal(err)
				}
			}
		}, "a/b withdrawn"},
		{"the path is a plain file now", func(t *testing.T, p pod) (string, func()) {
			return p.path, func() {
				unmount(t, p)
				if err := unix.Mount(os.DevNull, p.path, "", unix.MS_BIND, ""); err != nil { // which p.drop can take off
					t.Fatal(err)
				}
			}
		}, "a/b withdrawn"},
	}
	for _, test := range tests {
		for _, lost := range []string{"detached", "unpinned"} {
			t.Run(test.name+", "+lost, func(t *testing.T) {
				o, links := newOptions(t, 10)
				p := newPod(t, "10.9.0.1/32")
				path, then := test.by(t, p)
				r := mustEnrol(t, o, Pod{Name: "a/b", Netns: path})
				before := mustList(t, o)
				if lost == "detached" {
					links.detach(t, linksID(r.Cookie), hookLookup())
				} else if err := links.Detach(t.Context(), linksID(r.Cookie), hookLookup()); err != nil {
					t.Fatal(err)
				}
				then()
				if done := mustMend(t, o); len(done) != 1 || done[0] != test.done {
					t.Fatalf("done %q", done)
				}
				if h := mustCheck(t, o); !h.Well() {
					t.Errorf("left %+v", h)
				}
				after := mustList(t, o)
				if strings.HasSuffix(test.done, "withdrawn") {
					before = before[:0]
				}
				if !slices.Equal(before, after) {
					t.Errorf("was %+v, is %+v", before, after)
				}
			})
		}
	}
}

func TestMendRemovesStrays(t *testing.T) {
	o, links := newOptions(t, 10)
	p := newPod(t, "10.9.0.1/32")
	r := mustEnrol(t, o, Pod{Name: "a/b", Netns: p.path})
	// As an enrolment leaves it that is killed before its last step, and one that is killed before its second.
	if err := o.Maps.Workloads.Delete(byNetns(r.Cookie)); err != nil {
		t.Fatal(err)
	}
	other := newPod(t, "10.9.0.2/32")
	q := mustEnrol(t, o, Pod{Name: "a/c", Netns: other.path})
	if err := removeAll(o.Maps, q.Cookie, uint32(q.HostInterface)); err != nil {
		t.Fatal(err)
	}
	if h := mustCheck(t, o); len(h.Stray) != 2 {
		t.Errorf("found %+v", h)
	}
	mustMend(t, o)
	if n := elements(t, o.Maps); n != 0 || len(links.links) != 0 {
		t.Errorf("%d elements, %d links are left", n, len(links.links))
	}
}

// TestMendRemovesStaleInterfaces: an enrolment that moves a pod to another interface, or ends the check of its sources, and
// is killed before its last step, leaves elements that nobody asks for but that take room.
func TestMendRemovesStaleInterfaces(t *testing.T) {
	for _, checked := range []bool{true, false} {
		o, _ := newOptions(t, 10)
		o.SourceCheck = checked
		p := newPod(t, "10.9.0.1/32")
		r := mustEnrol(t, o, Pod{Name: "a/b", Netns: p.path})
		before := mustList(t, o)
		indexes := []uint32{4001, 4002} // of links that are gone
		if !checked {
			indexes = append(indexes, uint32(r.HostInterface))
		}
		for _, index := range indexes {
			if err := o.Maps.Workloads.Put(byInterface(index), bpf.MeshWorkload{Netns: r.Cookie, Interface: index}); err != nil {
				t.Fatal(err)
			}
		}
		// What no workload is left of, by several interfaces.
		for _, index := range []uint32{4003, 4004} {
			if err := o.Maps.Workloads.Put(byInterface(index), bpf.MeshWorkload{Netns: 1 << 40, Interface: index}); err != nil {
				t.Fatal(err)
			}
		}
		if done := mustMend(t, o); len(done) != len(indexes)+2 {
			t.Errorf("done %q", done)
		}
		if h := mustCheck(t, o); !h.Well() {
			t.Errorf("left %+v", h)
		}
		if after := mustList(t, o); !slices.Equal(before, after) {
			t.Errorf("was %+v, is %+v", before, after)
		}
		want := 2 // the pod's entry and its name
		if checked {
			want++
		}
		if n := elements(t, o.Maps); n != want {
			t.Errorf("%d elements are left, want %d", n, want)
		}
	}
}

// TestMendWritesTheInterfaceAgain: tcx takes an interface without an element for one of a pod that is not enrolled.
func TestMendWritesTheInterfaceAgain(t *testing.T) {
	for name, spoil := range map[string]func(o Options, key bpf.MeshWorkloadKey, v *bpf.MeshWorkload) error{
		"missing": func(o Options, key bpf.MeshWorkloadKey, _ *bpf.MeshWorkload) error {
			return o.Maps.Workloads.Delete(key)
		},
		"without the check": func(o Options, key bpf.MeshWorkloadKey, v *bpf.MeshWorkload) error {
			v.Flags = 0
			return o.Maps.Workloads.Put(key, v)
		},
		"with another address": func(o Options, key bpf.MeshWorkloadKey, v *bpf.MeshWorkload) error {
			v.Ip4 = bpf.AddressOf(netip.MustParseAddr("10.9.0.9"))
			return o.Maps.Workloads.Put(key, v)
		},
		"of another pod": func(o Options, key bpf.MeshWorkloadKey, v *bpf.MeshWorkload) error {
			v.Netns++
			return o.Maps.Workloads.Put(key, v)
		},
	} {
		t.Run(name, func(t *testing.T) {
			o, _ := newOptions(t, 10)
			p := newPod(t, "10.9.0.1/32")
			mustEnrol(t, o, Pod{Name: "a/b", Netns: p.path})
			key := byInterface(uint32(p.host))
			before, err := lookup[bpf.MeshWorkload](o.Maps.Workloads, key)
			if err != nil || before == nil {
				t.Fatal(before, err)
			}
			other := *before
			if err := spoil(o, key, &other); err != nil {
				t.Fatal(err)
			}
			h := mustCheck(t, o)
			if len(h.Broken) != 1 || !strings.Contains(h.Broken[0].Why, "sources are not checked") {
				t.Errorf("found %+v", h)
			}
			if done := mustMend(t, o); !slices.Contains(done, "a/b attached again") {
				t.Errorf("done %q", done)
			}
			after, err := lookup[bpf.MeshWorkload](o.Maps.Workloads, key)
			if err != nil || after == nil || *after != *before {
				t.Errorf("was %+v, is %+v, %v", before, after, err)
			}
			if h := mustCheck(t, o); !h.Well() {
				t.Errorf("left %+v", h)
			}
		})
	}
}

// TestInterfaceOfAnother makes sure that an index that was given to another pod's veth is not taken from that.
func TestInterfaceOfAnother(t *testing.T) {
	o, _ := newOptions(t, 10)
	p, other := newPod(t, "10.9.0.1/32"), newPod(t, "10.9.0.2/32")
	r := mustEnrol(t, o, Pod{Name: "a/b", Netns: p.path})
	q := mustEnrol(t, o, Pod{Name: "a/c", Netns: other.path})
	stale, err := lookup[bpf.MeshWorkload](o.Maps.Workloads, byNetns(r.Cookie))
	if err != nil {
		t.Fatal(err)
	}
	stale.Interface = uint32(q.HostInterface)
	if err := o.Maps.Workloads.Put(byNetns(r.Cookie), stale); err != nil {
		t.Fatal(err)
	}
	if _, err := Withdraw(t.Context(), o, Pod{Name: "a/b", Netns: p.path}); err != nil {
		t.Fatal(err)
	}
	found, err := lookup[bpf.MeshWorkload](o.Maps.Workloads, byInterface(uint32(q.HostInterface)))
	if err != nil || found == nil || found.Netns != q.Cookie {
		t.Errorf("the entry of the other pod's interface: %+v, %v", found, err)
	}
}
