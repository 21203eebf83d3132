// SPDX-License-Identifier: Apache-2.0

package nat

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// In a namespace of its own: a connection to a service reaches its endpoint, and the rules are what it takes.
func TestInstall(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // not unlocked: the thread ends with the namespace that it made
		done <- translate()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func translate() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	netns := fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())
	if err := loopbackUp(); err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.2:7001")
	if err != nil {
		return err
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "it is "+conn.LocalAddr().String())
			conn.Close()
		}
	}()
	// 127.0.0.0/8 is routed to lo, whatever the address: without the rules nobody listens there.
	service := netip.MustParseAddrPort("127.1.0.1:80")
	if answer, err := dial(service); err == nil {
		return fmt.Errorf("without rules %v answers %q", service, answer)
	}
	services := []Service{{Address: service, Protocol: unix.IPPROTO_TCP,
		Endpoints: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.2:7001")}}}
	for i := range 300 { // more than a batch
		services = append(services, Service{
			Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 2, byte(i >> 8), byte(i)}), 80), Protocol: unix.IPPROTO_TCP,
			Endpoints: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.2:7001"), netip.MustParseAddrPort("127.0.0.2:7001")},
		})
	}
	if err := Install(netns, services); err != nil {
		return err
	}
	for _, s := range services {
		answer, err := dial(s.Address)
		if err != nil {
			return fmt.Errorf("dial %v: %w", s.Address, err)
		}
		if !strings.Contains(answer, "127.0.0.2:7001") {
			return fmt.Errorf("%v answers %q", s.Address, answer)
		}
	}
	return nil
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request)
}

// dial connects by this thread, whose namespace it is.
func dial(to netip.AddrPort) (string, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	tv := unix.NsecToTimeval(time.Second.Nanoseconds())
	for _, option := range []int{unix.SO_SNDTIMEO, unix.SO_RCVTIMEO} {
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, option, &tv); err != nil {
			return "", err
		}
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}); err != nil {
		return "", err
	}
	buffer := make([]byte, 100)
	n, err := unix.Read(fd, buffer)
	return string(buffer[:max(n, 0)]), errors.Join(err)
}
