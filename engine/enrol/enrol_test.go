// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/bpf"
)

func mustEnrol(t testing.TB, o Options, p Pod) Result {
	t.Helper()
	r, err := Enrol(t.Context(), o, p)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func mustList(t testing.TB, o Options) []Workload {
	t.Helper()
	all, err := List(o.Maps)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

var addresses = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

func TestEnrolAndWithdraw(t *testing.T) {
	o, links := newOptions(t, 10)
	p := newPod(t, "10.9.0.1/32", "fd00:9::1/128")
	pod := Pod{Name: "shop/web-0", Netns: p.path}

	r := mustEnrol(t, o, pod)
	want := Result{
		Cookie: r.Cookie, IP4: netip.MustParseAddr("10.9.0.1"), IP6: netip.MustParseAddr("fd00:9::1"), Interface: "eth0",
		HostInterface: p.host, Changed: true,
	}
	if diff := cmp.Diff(want, r, addresses); diff != "" || r.Cookie == 0 {
		t.Errorf("result (-want +got):\n%s", diff)
	}
	first := mustList(t, o)
	if len(first) != 1 || first[0].Incarnation == 0 {
		t.Fatalf("enrolled: %+v", first)
	}
	workload := Workload{
		Name: "shop/web-0", Netns: p.path, Cookie: r.Cookie, IP4: want.IP4, IP6: want.IP6, Interface: p.host,
		Incarnation: first[0].Incarnation, SourceCheck: true,
	}
	if diff := cmp.Diff(workload, first[0], addresses); diff != "" {
		t.Errorf("workload (-want +got):\n%s", diff)
	}
	byVeth, err := lookup[bpf.MeshWorkload](o.Maps.Workloads, byInterface(uint32(p.host)))
	if err != nil || byVeth == nil || byVeth.Netns != r.Cookie {
		t.Errorf("entry of the interface: %+v, %v", byVeth, err)
	}
	if n := len(links.links[linksID(r.Cookie)]); n != 2 {
		t.Errorf("%d links", n)
	}

	_, err = Enrol(t.Context(), o, Pod{Name: "shop/web-1", Netns: p.path})
	if err == nil || !strings.Contains(err.Error(), "shop/web-0") {
		t.Errorf("under another name: %v", err)
	}
	if again := mustEnrol(t, o, pod); again.Changed {
		t.Error("enrolling again changed something")
	}
	if diff := cmp.Diff(first, mustList(t, o), addresses); diff != "" {
		t.Errorf("enrolled again (-first +now):\n%s", diff)
	}

	for _, wasThere := range []bool{true, false} {
		was, err := Withdraw(t.Context(), o, pod)
		if err != nil || was != wasThere {
			t.Errorf("withdraw: %v, %v; it was there: %v", was, err, wasThere)
		}
		if n := elements(t, o.Maps); n != 0 || len(links.links) != 0 {
			t.Errorf("%d elements and %d links are left", n, len(links.links))
		}
	}

	mustEnrol(t, o, pod)
	if back := mustList(t, o); back[0].Incarnation == first[0].Incarnation {
		t.Error("a pod that comes back is another workload, but has the same incarnation")
	}
}

func TestEnrolAgainTellsWhatChanged(t *testing.T) {
	o, links := newOptions(t, 10)
	p := newPod(t, "10.9.0.1/32")
	pod := Pod{Name: "shop/web-0", Netns: p.path}
	r := mustEnrol(t, o, pod)
	before := mustList(t, o)[0]

	inPod(t, p.path, func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		a, _ := netlink.ParseAddr("10.9.0.1/32")
		return netlink.AddrDel(l, a)
	})
	addAddress(t, p.path, "eth0", "10.9.0.7/32")
	o.Canary = true
	if again := mustEnrol(t, o, pod); !again.Changed {
		t.Error("nothing was changed")
	}
	after := mustList(t, o)[0]
	if after.IP4.String() != "10.9.0.7" || !after.Canary || after.Incarnation != before.Incarnation {
		t.Errorf("before %+v, after %+v", before, after)
	}

	o.SourceCheck = false
	mustEnrol(t, o, pod)
	if hooks := links.links[linksID(r.Cookie)]; len(hooks) != 1 || hooks[hookLookup()] == nil {
		t.Errorf("without a source check %v are attached", hooks)
	}
	if n := elements(t, o.Maps); n != 2 {
		t.Errorf("without a source check there are %d elements, want the name and the one that publishes", n)
	}
}

func TestEnrolRefuses(t *testing.T) {
	o, _ := newOptions(t, 10)
	p := newPod(t, "10.9.0.1/32")
	tests := []struct {
		name string
		pod  Pod
		want Reason
	}{
		{"declared host network", Pod{"a/b", p.path, Facts{HostNetwork: true}}, HostNetwork},
		{"sidecar", Pod{"a/b", p.path, Facts{Sidecar: "istio-proxy"}}, Sidecar},
		{"other mesh", Pod{"a/b", p.path, Facts{OtherMesh: "istio ambient"}}, OtherMesh},
		{"own namespace", Pod{"a/b", "/proc/self/ns/net", Facts{}}, HostNetwork},
		{"namespace of the first process", Pod{"a/b", firstNetns, Facts{}}, HostNetwork},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if _, err := os.Readlink(test.pod.Netns); test.pod.Netns == firstNetns && errors.Is(err, fs.ErrPermission) {
				t.Skip("the first process has more rights than this one, so its namespace cannot be told")
			}
			_, err := Enrol(t.Context(), o, test.pod)
			var refused *RefusedError
			if !errors.As(err, &refused) || refused.Reason != test.want || refused.Detail == "" {
				t.Errorf("%v", err)
			}
			if n := elements(t, o.Maps); n != 0 {
				t.Errorf("%d elements were written", n)
			}
		})
	}
}

func TestEnrolSaysWhatIsWrong(t *testing.T) {
	o, links := newOptions(t, 10)
	empty, _ := newNetns(t)
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	// The other end is in a third namespace, under an index that the node has as well.
	third, _ := newNetns(t)
	stray, _ := newNetns(t)
	host := addVeth(t, third, stray, "eth0", "10.9.0.3/32")
	for newPod(t, "10.9.1.1/32").host < host {
	}
	tests := []struct{ name, pod, path, want string }{
		{"no such file", "a/b", "/run/netns/missing", "/run/netns/missing"},
		{"a file", "a/b", "/etc/passwd", "not a network namespace"},
		{"a fifo", "a/b", fifo, "not a network namespace"},
		{"a directory", "a/b", "/proc", "not a network namespace"},
		{"another kind", "a/b", "/proc/self/ns/mnt", "not a network namespace"},
		{"no address", "a/b", empty, "no address"},
		{"a name that is none", "web", empty, "NS/NAME"},
		{"a name with a line in it", "a/b\nc", empty, "NS/NAME"},
		{"a path that is too long", "a/b", "/" + strings.Repeat("x", 200), "longer than 191"},
		{"a veth to elsewhere", "a/b", stray, "--source-check=false"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := Enrol(t.Context(), o, Pod{Name: test.pod, Netns: test.path})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q in it", err, test.want)
			}
			if n := elements(t, o.Maps); n != 0 || len(links.links) != 0 {
				t.Errorf("%d elements, %d links are left", n, len(links.links))
			}
		})
	}
	o.SourceCheck = false
	if r := mustEnrol(t, o, Pod{Name: "a/b", Netns: stray}); r.HostInterface != 0 {
		t.Errorf("interface %d of the node was taken for the pod's", r.HostInterface)
	}
}

func TestEnrolChoosesAnAddress(t *testing.T) {
	o, _ := newOptions(t, 10)
	p := newPod(t, "10.9.0.1/24", "10.9.0.2/24")
	addVeth(t, "", p.path, "eth1", "10.9.1.1/24", "10.9.1.2/24", "fd00:9::1/64")
	inPod(t, p.path, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		a, err := netlink.ParseAddr("10.8.0.1/32")
		if err != nil {
			return err
		}
		return netlink.AddrAdd(lo, a)
	})
	chosen := func() string {
		r := mustEnrol(t, o, Pod{Name: "a/b", Netns: p.path})
		return fmt.Sprint(r.Interface, " ", r.IP4, " ", r.IP6, " ", r.Ignored)
	}
	if got, want := chosen(), "eth0 10.9.0.1 fd00:9::1 [10.9.0.2 10.9.1.1 10.9.1.2]"; got != want {
		t.Errorf("without a default route: %s, want %s", got, want)
	}
	inPod(t, p.path, func() error {
		l, err := netlink.LinkByName("eth1")
		if err != nil {
			return err
		}
		everywhere := &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}
		return netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Scope: netlink.SCOPE_LINK, Dst: everywhere})
	})
	if got, want := chosen(), "eth1 10.9.1.1 fd00:9::1 [10.9.1.2 10.9.0.1 10.9.0.2]"; got != want {
		t.Errorf("with a default route: %s, want %s", got, want)
	}
}

func TestEnrolIsUndoneWhenItFails(t *testing.T) {
	for _, hook := range []string{hookLookup(), hookTcx()} {
		t.Run("attaching "+hook, func(t *testing.T) {
			o, links := newOptions(t, 10)
			p := newPod(t, "10.9.0.1/32")
			links.fail = hook
			if _, err := Enrol(t.Context(), o, Pod{Name: "a/b", Netns: p.path}); err == nil {
				t.Fatal("no error")
			}
			if n := elements(t, o.Maps); n != 0 || len(links.links) != 0 {
				t.Errorf("%d elements, %d links are left", n, len(links.links))
			}
		})
	}
	t.Run("no room", func(t *testing.T) {
		o, links := newOptions(t, 2)
		for i := range 2 {
			mustEnrol(t, o, Pod{Name: fmt.Sprint("a/b", i), Netns: newPod(t, "10.9.0.1/32").path})
		}
		_, err := Enrol(t.Context(), o, Pod{Name: "a/third", Netns: newPod(t, "10.9.0.1/32").path})
		var full *FullError
		if !errors.As(err, &full) || full.Flag != "--max-workloads" || !strings.Contains(err.Error(), "a/third") {
			t.Errorf("error %v", err)
		}
		if n := elements(t, o.Maps); n != 6 || len(links.links) != 2 {
			t.Errorf("%d elements, %d pods with links", n, len(links.links))
		}
	})
}

// TestLimit: fewer pods may be enrolled than the maps have room for, and a smaller limit puts nobody out.
func TestLimit(t *testing.T) {
	o, links := newOptions(t, 10)
	o.Maps.Limit = 2
	var pods []Pod
	for i := range 3 {
		pods = append(pods, Pod{Name: fmt.Sprint("a/b", i), Netns: newPod(t, "10.9.0.1/32").path})
	}
	mustEnrol(t, o, pods[0])
	mustEnrol(t, o, pods[1])
	var full *FullError
	if _, err := Enrol(t.Context(), o, pods[2]); !errors.As(err, &full) || full.Max != 2 || full.Flag != "--max-workloads" {
		t.Errorf("error %v", err)
	}
	if n := elements(t, o.Maps); n != 6 || len(links.links) != 2 {
		t.Errorf("%d elements, %d pods with links", n, len(links.links))
	}
	o.Maps.Limit = 1
	o.SourceCheck = false
	mustEnrol(t, o, pods[1]) // who is in may change
	o.Maps.Limit = 3
	mustEnrol(t, o, pods[2])
}

func TestWithdrawFindsThePod(t *testing.T) {
	o, _ := newOptions(t, 10)
	p, other := newPod(t, "10.9.0.1/32"), newPod(t, "10.9.0.2/32")
	r := mustEnrol(t, o, Pod{Name: "a/b", Netns: p.path})
	mustEnrol(t, o, Pod{Name: "a/c", Netns: other.path})

	if _, err := Withdraw(t.Context(), o, Pod{Name: "a/c", Netns: p.path}); err == nil || !strings.Contains(err.Error(), "a/b") {
		t.Errorf("under another name: %v", err)
	}
	p.drop()
	if was, err := Withdraw(t.Context(), o, Pod{Name: "a/b", Netns: p.path + "x"}); was || err != nil {
		t.Errorf("by another path that is gone: %v, %v", was, err)
	}
	if was, err := Withdraw(t.Context(), o, Pod{Name: "a/b", Netns: p.path}); !was || err != nil {
		t.Errorf("by the path that is gone: %v, %v", was, err)
	}
	if was, err := Withdraw(t.Context(), o, Pod{Name: "a/c"}); !was || err != nil {
		t.Errorf("by name: %v, %v", was, err)
	}
	if n := elements(t, o.Maps); n != 0 {
		t.Errorf("%d elements are left, of cookie %d perhaps", n, r.Cookie)
	}
}

// TestManyAtOnce also makes sure that no thread of the process stays in a pod.
func TestManyAtOnce(t *testing.T) {
	o, _ := newOptions(t, 200)
	o.SourceCheck = false // attaching to an interface waits for a grace period each, whoever asks
	paths := make([]string, 100)
	for i := range paths {
		paths[i] = newPod(t, fmt.Sprintf("10.9.1.%d/32", i+1)).path
	}
	begin := time.Now()
	var workers errgroup.Group
	workers.SetLimit(2)
	for i, path := range paths {
		workers.Go(func() error {
			_, err := Enrol(t.Context(), o, Pod{Name: fmt.Sprint("a/b", i), Netns: path})
			return err
		})
	}
	if err := workers.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d pods in %v", len(paths), time.Since(begin))
	if n := len(mustList(t, o)); n != len(paths) {
		t.Errorf("%d are enrolled", n)
	}
	home, err := os.Readlink(selfNetns)
	if err != nil {
		t.Fatal(err)
	}
	threads, err := filepath.Glob("/proc/self/task/*/ns/net")
	if err != nil || len(threads) == 0 {
		t.Fatal(threads, err)
	}
	for _, thread := range threads {
		if at, err := os.Readlink(thread); err == nil && at != home {
			t.Errorf("thread %s is in %s, not in %s", thread, at, home)
		}
	}
}

// TestVisitAvoidsTheFirstThread occupies every thread but the first with goroutines that cannot move.
func TestVisitAvoidsTheFirstThread(t *testing.T) {
	path, _ := newNetns(t)
	seen := make(chan int, 100)
	for range 100 {
		inPod(t, path, func() error {
			runtime.Gosched()
			seen <- unix.Gettid()
			return nil
		})
	}
	for range 100 {
		if <-seen == unix.Getpid() {
			t.Fatal("the first thread of the process entered a pod's namespace")
		}
	}
}
