// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bufio"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// The hooks on a real kernel: a child process in a cgroup and a network namespace of its own is the enrolled pod, and
// makes the checks named inside below; the parent is the node.

var (
	podAddresses = []string{"10.9.0.1", "10.9.0.2", "10.9.0.3", "10.9.0.4", "fd00:9::1"}
	service4     = netip.MustParseAddr("10.96.0.1")
	service6     = netip.MustParseAddr("fd00:96::1")
	other4       = netip.MustParseAddr("10.96.0.2")
)

func TestHooks(t *testing.T) {
	needRoot(t)
	coll := mustLoad(t, 1, nil)
	putWord(t, coll.Maps["super"], 1, 1)
	cgroup := mustCgroup(t)
	for _, h := range Hooks() {
		if err := coll.Maps["calls_"+h.Name].Put(uint32(16), coll.Programs[h.Program]); err != nil {
			t.Fatal(err)
		}
		if h.Target != Cgroup {
			continue
		}
		l, err := link.AttachCgroup(link.CgroupOptions{
			Path: cgroup, Attach: h.Attach, Program: coll.Programs[h.Entry]})
		if err != nil {
			t.Fatalf("attach %s: %v", h.Name, err)
		}
		t.Cleanup(func() { l.Close() })
	}
	node := fixture{coll.Maps, t}
	node.service(1, service4, 80, TCPNumber, netip.MustParseAddrPort("10.9.0.1:8080"))
	node.service(2, service4, 53, UDPNumber, netip.MustParseAddrPort("10.9.0.1:5353"))
	node.service(3, service6, 80, TCPNumber, netip.MustParseAddrPort("[fd00:9::1]:8080"))
	node.service(4, service6, 53, UDPNumber, netip.MustParseAddrPort("[fd00:9::1]:5353"))
	node.service(5, other4, 53, UDPNumber, netip.MustParseAddrPort("10.9.0.2:5353"))
	node.service(6, other4, 80, TCPNumber) // no endpoint
	node.service(7, spread4.Addr(), 53, UDPNumber, netip.MustParseAddrPort("10.9.0.1:5353"),
		netip.MustParseAddrPort("10.9.0.2:5353"), netip.MustParseAddrPort("10.9.0.3:5353"),
		netip.MustParseAddrPort("10.9.0.4:5353"))
	node.service(8, shared4.Addr(), 53, UDPNumber, netip.MustParseAddrPort("10.9.0.1:5353"))
	node.service(9, empty4.Addr(), 53, UDPNumber)
	node.service(10, unroutable4.Addr(), 53, UDPNumber, netip.MustParseAddrPort("203.0.113.1:53"))
	node.service(11, deaf4.Addr(), 80, TCPNumber, netip.MustParseAddrPort("10.9.0.1:1"))

	for name := range insideChecks {
		t.Run(name, func(t *testing.T) {
			node := fixture{coll.Maps, t}
			before := node.counter(MeshCountREFUSED_NO_PORT)
			node.runInside(cgroup, name)
			if name == "udp-lite" && hasUDPLite(t) && node.counter(MeshCountREFUSED_NO_PORT) != before+2 {
				t.Errorf("two sockets were refused, counted are %d", node.counter(MeshCountREFUSED_NO_PORT)-before)
			}
		})
	}
	if got := node.counter(MeshCountREFUSED_NO_PORT); got == 0 {
		t.Error("a port that is not there was refused, but not counted")
	}
	if got := node.counter(MeshCountREFUSED_NO_ENDPOINT); got == 0 {
		t.Error("a service without endpoints refused, but it was not counted")
	}
	if got := node.counter(MeshCountCOUNT_FAILED); got != 1 {
		t.Errorf("%d handshakes failed, want the one to an endpoint that does not listen", got)
	}
	if got := node.counter(MeshCountCOUNT_ACCEPTED); got == 0 {
		t.Error("servers accepted connections, but none was counted")
	}
	if a, b := node.counter(MeshCountCOUNT_ESTABLISHED), node.counter(MeshCountCOUNT_CLOSED); a == 0 || a != b {
		t.Errorf("%d connections were established, %d closed: want as many, and some", a, b)
	}
}

// hasUDPLite tells whether the kernel has it; distributions leave it out more and more.
func hasUDPLite(t *testing.T) bool {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_UDPLITE)
	if err != nil {
		t.Logf("no UDP-Lite: %v", err)
		return false
	}
	unix.Close(fd)
	return true
}

// IP protocol numbers.
const (
	TCPNumber = 6
	UDPNumber = 17
)

// fixture writes maps before any program reads them.
type fixture struct {
	maps map[string]*ebpf.Map
	t    *testing.T
}

func (f fixture) put(name string, key, value any) {
	f.t.Helper()
	if err := f.maps[name].Put(key, value); err != nil {
		f.t.Fatalf("put into %s: %v", name, err)
	}
}

// service adds one at index with its endpoints, eight at most.
func (f fixture) service(index uint32, a netip.Addr, port uint16, protocol uint8, endpoints ...netip.AddrPort) {
	f.t.Helper()
	key := MeshServiceKey{Address: AddressOf(a), Port: BigEndian(port), Protocol: protocol}
	record := MeshService{Key: key, Incarnation: 1}
	first := 8 * index
	record.Ranges[MeshServiceLevelLEVEL_READY] = Range(first, uint32(len(endpoints)))
	for i, e := range endpoints {
		f.put("slots", first+uint32(i), first+uint32(i))
		f.put("endpoints", first+uint32(i),
			MeshEndpoint{Address: AddressOf(e.Addr()), Port: BigEndian(e.Port()), Incarnation: 1, State: 1})
	}
	f.put("services", index, record)
	f.put("service_ids", key, index)
	f.put("service_ids", MeshServiceKey{Address: AddressOf(a)}, uint32(0))
}

func (f fixture) counter(what MeshCount) (sum uint64) {
	f.t.Helper()
	var perCPU []uint64
	if err := f.maps["counters"].Lookup(uint32(what), &perCPU); err != nil {
		f.t.Fatal(err)
	}
	for _, n := range perCPU {
		sum += n
	}
	return sum
}

// runInside starts the child, enrols its namespace, and lets it make the check of that name.
func (f fixture) runInside(cgroup, name string) {
	f.t.Helper()
	dir, err := os.Open(cgroup)
	if err != nil {
		f.t.Fatal(err)
	}
	defer dir.Close()
	child := exec.Command("/proc/self/exe", "-test.run", "^TestInside$", "-test.v")
	child.Env = append(os.Environ(), "EVENKEEL_TEST_INSIDE="+name)
	child.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET, UseCgroupFD: true, CgroupFD: int(dir.Fd()), Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // Pdeathsig is of the thread
	defer runtime.UnlockOSThread()
	stdin, err := child.StdinPipe()
	if err != nil {
		f.t.Fatal(err)
	}
	stdout, err := child.StdoutPipe()
	if err != nil {
		f.t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		f.t.Fatal(err)
	}
	var log strings.Builder
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		var what string
		key := MeshWorkloadKey{By: uint32(MeshWorkloadByWORKLOAD_BY_NETNS)}
		_, _ = fmt.Sscanf(lines.Text(), "%s %d", &what, &key.Id) // most lines are no requests
		switch what {
		case "enrol":
			f.put("workloads", key, MeshWorkload{Netns: key.Id})
			fmt.Fprintln(stdin, "done")
		case "withdraw":
			if err := f.maps["workloads"].Delete(key); err != nil {
				f.t.Error(err)
			}
			fmt.Fprintln(stdin, "done")
		}
		fmt.Fprintln(&log, lines.Text())
	}
	if err := child.Wait(); err != nil {
		f.t.Fatalf("%s: %v\n%s", name, err, log.String())
	}
}

func mustCgroup(t *testing.T) string {
	t.Helper()
	root := ""
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); fields[2] == "cgroup2" {
			root = fields[1]
		}
	}
	path, err := os.MkdirTemp(root, "evenkeel-bpf-test-")
	if err != nil {
		t.Fatalf("make a cgroup in %q: %v", root, err)
	}
	t.Cleanup(func() {
		if err := os.Remove(filepath.Clean(path)); err != nil {
			t.Error(err)
		}
	})
	return path
}
