// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/bpf"
)

// plane is a data plane of its own: maps, programs and a cgroup whose processes they govern.
type plane struct {
	bpf.MeshMaps
	bpf.MeshPrograms
	cgroup string
}

func mustPlane(t *testing.T) *plane {
	t.Helper()
	mustRoot(t)
	p := &plane{cgroup: mustCgroup(t)}
	all, err := ebpf.NewCollection(mustSpec(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(all.Close)
	assign(&p.MeshMaps, all.Maps)
	assign(&p.MeshPrograms, all.Programs)
	mustWord(t, p.Super, testEpoch)
	maps := mapsByName(p.MeshMaps)
	programs := programsByName(&p.MeshPrograms)
	for _, h := range bpf.Hooks() {
		if h.Target != bpf.Cgroup {
			continue
		}
		// 16 x (generation 1 mod 4): the first slot of generation 1, see enum word_layout.
		if err := maps["calls_"+h.Name].Put(uint32(16), programs[h.Program]); err != nil {
			t.Fatal(err)
		}
		l, err := link.AttachCgroup(link.CgroupOptions{Path: p.cgroup, Attach: h.Attach, Program: programs[h.Entry]})
		if err != nil {
			t.Fatalf("attach %s: %v", h.Name, err)
		}
		t.Cleanup(func() { l.Close() })
	}
	return p
}

// assign puts what was loaded into the fields of that name; those for migrations stay nil.
func assign[T any](to any, all map[string]*T) {
	v := reflect.ValueOf(to).Elem()
	for i := range v.NumField() {
		if loaded := all[v.Type().Field(i).Tag.Get("ebpf")]; loaded != nil {
			v.Field(i).Set(reflect.ValueOf(loaded))
		}
	}
}

// mustCgroup makes a cgroup that is removed with the test.
func mustCgroup(t *testing.T) string {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); strings.Contains(line, " - cgroup2 ") {
			path := filepath.Join(fields[4], fmt.Sprintf("evenkeel-engine-%d-%s", os.Getpid(), t.Name()))
			if err := os.Mkdir(path, 0o755); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := os.Remove(path); err != nil {
					t.Error(err)
				}
			})
			return path
		}
	}
	t.Fatal("no cgroup2 is mounted")
	return ""
}

// pod is a process in a network namespace of its own, enrolled, that connects when it is told to.
type pod struct {
	t      *testing.T
	cookie uint64
	pid    int
	to     *json.Encoder
	from   *json.Decoder
}

// order tells a pod to connect so many UDP sockets, or to hold one, to connect that anew, to disconnect it, or to see
// whether it is still alive.
type order struct {
	Dial       netip.AddrPort
	Times      int
	Hold       bool
	Move       bool
	Disconnect bool
	Verify     bool
}

// answer is what came of an order.
type answer struct {
	Cookie uint64
	// Peers counts where sockets got to, as /proc/net/udp has it: the hooks do not change that.
	Peers   map[netip.AddrPort]int
	Refused int
	Error   string
	// Begin and End are CLOCK_MONOTONIC, nanoseconds.
	Begin, End int64
}

// mustPod starts a pod in the cgroup of p and enrols it.
func (p *plane) mustPod(t *testing.T, name string, ip4, ip6 netip.Addr) *pod {
	t.Helper()
	dir, err := os.Open(p.cgroup)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	orders, toChild, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	fromChild, answers, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command("/proc/self/exe", "-test.run", "^TestPodProcess$")
	child.Env = append(os.Environ(), "EVENKEEL_TEST_POD="+ip4.String()+","+ip6.String())
	child.ExtraFiles = []*os.File{orders, answers}
	child.Stderr = os.Stderr
	child.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET, UseCgroupFD: true, CgroupFD: int(dir.Fd()),
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	orders.Close()
	answers.Close()
	t.Cleanup(func() {
		toChild.Close() // it ends when there is nothing more to do
		fromChild.Close()
		_ = child.Wait() // it was killed
	})
	d := &pod{t: t, pid: child.Process.Pid, to: json.NewEncoder(toChild), from: json.NewDecoder(fromChild)}
	var hello answer
	if err := d.from.Decode(&hello); err != nil {
		t.Fatalf("start pod %s: %v", name, err)
	}
	d.cookie = hello.Cookie
	p.enrol(t, name, d, ip4, ip6)
	return d
}

func (p *plane) enrol(t *testing.T, name string, d *pod, ip4, ip6 netip.Addr) {
	t.Helper()
	w := bpf.MeshWorkload{Ip4: bpf.AddressOf(ip4), Ip6: bpf.AddressOf(ip6), Netns: d.cookie, Incarnation: 1}
	k := bpf.MeshWorkloadKey{Id: d.cookie, By: uint32(bpf.MeshWorkloadByWORKLOAD_BY_NETNS)}
	if err := p.Workloads.Put(k, w); err != nil {
		t.Fatal(err)
	}
	p.putName(t, d.cookie, name, fmt.Sprintf("/proc/%d/ns/net", d.pid))
}

func (p *plane) putName(t *testing.T, cookie uint64, pod, netns string) {
	t.Helper()
	var n bpf.MeshWorkloadName
	for i := range len(pod) {
		n.Pod[i] = int8(pod[i])
	}
	for i := range len(netns) {
		n.Netns[i] = int8(netns[i])
	}
	if err := p.WorkloadNames.Put(cookie, n); err != nil {
		t.Fatal(err)
	}
}

// do gives the pod an order and returns what came of it.
func (d *pod) do(o order) answer {
	d.t.Helper()
	a, err := d.try(o)
	if err != nil {
		d.t.Fatal(err)
	}
	return a
}

func (d *pod) try(o order) (answer, error) {
	var a answer
	if err := d.to.Encode(o); err != nil {
		return a, err
	}
	if err := d.from.Decode(&a); err != nil {
		return a, err
	}
	if a.Error != "" {
		return a, errors.New(a.Error)
	}
	return a, nil
}

// TestPodProcess is the pod; it is no test.
func TestPodProcess(t *testing.T) {
	addresses := os.Getenv("EVENKEEL_TEST_POD")
	if addresses == "" {
		t.Skip("run by mustPod, in a namespace of its own")
	}
	runtime.LockOSThread()
	to, from := json.NewEncoder(os.NewFile(4, "answers")), json.NewDecoder(os.NewFile(3, "orders"))
	cookie, err := preparePod(strings.Split(addresses, ","))
	if err != nil {
		t.Fatal(err)
	}
	_ = to.Encode(answer{Cookie: cookie}) // the parent sees it if it does not come
	held := -1
	for {
		var o order
		if err := from.Decode(&o); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
		a := answer{Begin: monotonic()}
		var err error
		switch {
		case o.Hold:
			held, err = dialUDP(o.Dial)
		case o.Move:
			err = unix.Connect(held, sockaddr(o.Dial))
		case o.Disconnect:
			err = disconnect(held)
		case o.Verify:
			err = pendingError(held)
		default:
			a.Peers, a.Refused, err = dialMany(o.Dial, o.Times)
		}
		if a.End = monotonic(); err != nil {
			a.Error = err.Error()
		}
		if err := to.Encode(a); err != nil {
			t.Fatal(err)
		}
	}
}

// disconnect is connect() with AF_UNSPEC, of which no hook hears.
func disconnect(fd int) error {
	var unspecified unix.RawSockaddr
	_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&unspecified)), unsafe.Sizeof(unspecified))
	if errno != 0 {
		return errno
	}
	return nil
}

// pendingError is what the next call on a socket would return.
func pendingError(fd int) error {
	errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && errno != 0 {
		err = unix.Errno(errno)
	}
	return err
}

func monotonic() int64 {
	var now unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) != nil {
		return 0
	}
	return now.Nano()
}

// preparePod gives the namespace addresses and a way to everywhere, which is loopback.
func preparePod(addresses []string) (uint64, error) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return 0, err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return 0, err
	}
	for _, a := range addresses {
		ip := net.ParseIP(a)
		bits := 128
		if ip.To4() != nil {
			bits = 32
		}
		host := &net.IPNet{IP: ip, Mask: net.CIDRMask(bits, bits)}
		if err := netlink.AddrAdd(lo, &netlink.Addr{IPNet: host, Flags: unix.IFA_F_NODAD}); err != nil {
			return 0, fmt.Errorf("add address %s: %w", a, err)
		}
		everywhere := &net.IPNet{IP: make(net.IP, bits/8), Mask: net.CIDRMask(0, bits)}
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: lo.Attrs().Index, Dst: everywhere}); err != nil {
			return 0, fmt.Errorf("add route to %s: %w", everywhere, err)
		}
	}
	return netnsCookie()
}

func sockaddr(to netip.AddrPort) unix.Sockaddr {
	if to.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}
	}
	return &unix.SockaddrInet6{Addr: to.Addr().As16(), Port: int(to.Port())}
}

func dialUDP(to netip.AddrPort) (int, error) {
	family := unix.AF_INET6
	if to.Addr().Is4() {
		family = unix.AF_INET
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.Connect(fd, sockaddr(to)); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// dialMany connects so many UDP sockets, some at a time, and counts where they got to.
func dialMany(to netip.AddrPort, times int) (map[netip.AddrPort]int, int, error) {
	peers, refused := make(map[netip.AddrPort]int), 0
	for times > 0 {
		batch := min(times, 250)
		times -= batch
		var open []int
		for range batch {
			fd, err := dialUDP(to)
			if errors.Is(err, unix.ECONNREFUSED) {
				refused++
				continue
			}
			if err != nil {
				return nil, 0, err
			}
			open = append(open, fd)
		}
		err := countPeers(to.Addr().Is4(), peers)
		for _, fd := range open {
			unix.Close(fd)
		}
		if err != nil {
			return nil, 0, err
		}
	}
	return peers, refused, nil
}

func countPeers(v4 bool, peers map[netip.AddrPort]int) error {
	path := "/proc/thread-self/net/udp6"
	if v4 {
		path = "/proc/thread-self/net/udp"
	}
	table, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		if len(fields) < 3 || fields[0] == "sl" {
			continue
		}
		peer, err := parsePeer(fields[2])
		if err != nil {
			return err
		}
		if peer.Port() != 0 {
			peers[peer]++
		}
	}
	return nil
}

// parsePeer reads "0100007F:1F90": 32-bit words in host order, then the port.
func parsePeer(s string) (netip.AddrPort, error) {
	address, port, _ := strings.Cut(s, ":")
	words, err := hex.DecodeString(address)
	if err != nil {
		return netip.AddrPort{}, err
	}
	for i := 0; i < len(words); i += 4 {
		slices.Reverse(words[i : i+4])
	}
	p, err := strconv.ParseUint(port, 16, 16)
	a, _ := netip.AddrFromSlice(words)
	return netip.AddrPortFrom(a, uint16(p)), err
}
