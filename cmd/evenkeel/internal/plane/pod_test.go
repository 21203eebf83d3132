// SPDX-License-Identifier: Apache-2.0

package plane

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/bpf"
	"github.com/evenkeel/evenkeel/upgrade"
)

// pod is a network namespace that is enrolled, in which this process, which is in the cgroup of the data plane for as
// long as the test lasts, opens sockets. Its addresses answer.
type pod struct {
	dir, cgroup string // of a tree of its own
	cookie      uint64
	orders      chan func()
}

// endpoints answer with their address.
var endpoints = []string{"10.9.0.1", "10.9.0.2", "10.9.0.3", "10.9.0.4"}

const endpointPort = 5353

func newPod(t *testing.T) *pod {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("this test needs root")
		}
		t.Skip("needs root")
	}
	p := &pod{orders: make(chan func())}
	mount := t.TempDir()
	must(t, unix.Mount("bpf", mount, "bpf", 0, ""))
	t.Cleanup(func() { must(t, unix.Unmount(mount, unix.MNT_DETACH)) })
	p.dir = filepath.Join(mount, "evenkeel")
	p.joinCgroup(t)
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends, and with it its hold of the namespace
		ready <- p.unshare()
		for do := range p.orders {
			do()
		}
	}()
	must(t, <-ready)
	t.Cleanup(func() { close(p.orders) })
	for _, address := range endpoints {
		p.do(t, func() error { return serve(t, address) })
	}
	return p
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// joinCgroup moves this process into a cgroup of its own, until the test ends.
func (p *pod) joinCgroup(t *testing.T) {
	t.Helper()
	root, err := CgroupRoot()
	must(t, err)
	own, err := os.ReadFile("/proc/self/cgroup")
	must(t, err)
	before := ""
	for line := range strings.Lines(string(own)) {
		if path, is := strings.CutPrefix(strings.TrimSpace(line), "0::"); is {
			before = filepath.Join(root, path)
		}
	}
	p.cgroup, err = os.MkdirTemp(root, "evenkeel-plane-test-")
	must(t, err)
	move := func(to string) error {
		return os.WriteFile(filepath.Join(to, "cgroup.procs"), []byte("0"), 0)
	}
	must(t, move(p.cgroup))
	t.Cleanup(func() { must(t, errors.Join(move(before), os.Remove(p.cgroup))) })
}

// unshare gives the thread a namespace of its own.
func (p *pod) unshare() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	for _, a := range endpoints {
		alone := &net.IPNet{IP: net.ParseIP(a), Mask: net.CIDRMask(32, 32)}
		if err := netlink.AddrAdd(lo, &netlink.Addr{IPNet: alone}); err != nil {
			return err
		}
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	p.cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	return err
}

// do runs something in the namespace.
func (p *pod) do(t *testing.T, what func() error) {
	t.Helper()
	done := make(chan error)
	p.orders <- func() { done <- what() }
	must(t, <-done)
}

func serve(t *testing.T, address string) error {
	c, err := net.ListenPacket("udp4", fmt.Sprintf("%s:%d", address, endpointPort))
	if err != nil {
		return err
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		b := make([]byte, 64)
		for {
			_, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = c.WriteTo([]byte(address), from)
		}
	}()
	return nil
}

// services are dialled on port 53. Those of even number keep a workload on its endpoint.
func service(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}), 53)
}

// fill enrols the pod and makes services, before anything reads them.
func (p *pod) fill(t *testing.T, s *upgrade.Store, services int) {
	t.Helper()
	maps, err := Maps(s.Frozen(), s.Serving())
	must(t, err)
	for i, a := range endpoints {
		must(t, maps.Endpoints.Put(uint32(i+1), bpf.MeshEndpoint{
			Address: bpf.AddressOf(netip.MustParseAddr(a)), Port: bpf.BigEndian(uint16(endpointPort)), Incarnation: 1, State: 1,
		}))
		must(t, maps.Slots.Put(uint32(i+1), uint32(i+1)))
	}
	for i := 1; i <= services; i++ {
		at := service(i)
		key := bpf.MeshServiceKey{Address: bpf.AddressOf(at.Addr()), Port: bpf.BigEndian(at.Port()), Protocol: unix.IPPROTO_UDP}
		record := bpf.MeshService{Key: key, Incarnation: 1}
		if i%2 == 0 {
			record.Flags, record.Affinity = uint32(bpf.MeshServiceFlagSERVICE_AFFINITY), 3600
		}
		record.Ranges[bpf.MeshServiceLevelLEVEL_READY] = bpf.Range(1, uint32(len(endpoints)))
		must(t, maps.Services.Put(uint32(i), record))
		must(t, maps.ServiceIds.Put(key, uint32(i)))
	}
	must(t, maps.Workloads.Put(bpf.MeshWorkloadKey{Id: p.cookie, By: uint32(bpf.MeshWorkloadByWORKLOAD_BY_NETNS)},
		bpf.MeshWorkload{Netns: p.cookie, Incarnation: 1}))
}

// socket is a UDP socket of the pod.
type socket struct{ fd int }

func (p *pod) socket(t *testing.T) socket {
	t.Helper()
	var s socket
	p.do(t, func() (err error) {
		if s.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5})
	})
	return s
}

func (s socket) close() { unix.Close(s.fd) }

// ask sends to a service and returns the endpoint that answers. The answer has to be shown as the service's.
func (s socket) ask(t *testing.T, to netip.AddrPort) string {
	t.Helper()
	if err := unix.Sendto(s.fd, []byte("?"), 0, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}); err != nil {
		t.Fatalf("send to %v: %v", to, err)
	}
	b := make([]byte, 64)
	n, from, err := unix.Recvfrom(s.fd, b, 0)
	if err != nil {
		t.Fatalf("answer of %v: %v", to, err)
	}
	at := from.(*unix.SockaddrInet4)
	if got := netip.AddrPortFrom(netip.AddrFrom4(at.Addr), uint16(at.Port)); got != to {
		t.Fatalf("%v was asked, the answer is shown as of %v", to, got)
	}
	return string(b[:n])
}

// connect asks a service by a socket of its own.
func (p *pod) connect(t *testing.T, to netip.AddrPort) string {
	t.Helper()
	s := p.socket(t)
	defer s.close()
	if err := unix.Connect(s.fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}); err != nil {
		t.Fatalf("connect to %v: %v", to, err)
	}
	if _, err := unix.Write(s.fd, []byte("?")); err != nil {
		t.Fatalf("send to %v: %v", to, err)
	}
	b := make([]byte, 64)
	n, err := unix.Read(s.fd, b)
	if err != nil {
		t.Fatalf("answer of %v: %v", to, err)
	}
	return string(b[:n])
}

// sinceBoot is CLOCK_BOOTTIME, which programs write.
func sinceBoot(t *testing.T) uint64 {
	t.Helper()
	var now unix.Timespec
	must(t, unix.ClockGettime(unix.CLOCK_BOOTTIME, &now))
	return uint64(time.Duration(now.Nano()))
}
