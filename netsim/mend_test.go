// SPDX-License-Identifier: Apache-2.0

package netsim

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// inPod runs fn with the links of a pod.
func inPod(t *testing.T, l *Lab, pod string, fn func(s stack) error) {
	t.Helper()
	err := onThread(func() error {
		if err := enterNamespace(l.Pod(pod).Netns); err != nil {
			return err
		}
		s, err := newStack()
		if err != nil {
			return err
		}
		defer s.Close()
		return fn(s)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// mustAnswer fails unless a pod's server answers in both families.
func mustAnswer(t *testing.T, l *Lab, pod string) {
	t.Helper()
	for _, a := range l.Pod(pod).Addresses {
		at := net.JoinHostPort(a.String(), "9000")
		if got, err := ask(t, l.Pod("client"), "tcp", at, "hello"); err != nil || got != "hello" {
			t.Errorf("%s: %q, %v", at, got, err)
		}
	}
}

// Whatever somebody does to the network of a pod or to a wire, mending puts it right, and can be repeated.
func TestMend(t *testing.T) {
	l := mustUp(t, threeInARow)
	eth0 := func(s stack) netlink.Link {
		link, err := s.LinkByName("eth0")
		if err != nil {
			t.Fatal(err)
		}
		return link
	}
	foreign := netip.MustParseAddr("10.10.3.77")
	for what, harm := range map[string]func(s stack) error{
		"nothing": func(stack) error { return nil },
		"down":    func(s stack) error { return s.LinkSetDown(eth0(s)) },
		"mtu":     func(s stack) error { return s.LinkSetMTU(eth0(s), 600) },
		"gone":    func(s stack) error { return s.LinkDel(eth0(s)) },
		"address": func(s stack) error {
			own := l.Pod("far-1").Addresses[0]
			if err := s.AddrDel(eth0(s), &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(own, 32))}); err != nil {
				return err
			}
			return s.address(podLink, foreign)
		},
		"namespace": func(stack) error { return removeNamespace(l.Pod("far-1").Netns) },
	} {
		inPod(t, l, "far-1", harm)
		for range 2 {
			if err := l.MendPod(t.Context(), "default/far-1", true); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
		}
		mustAnswer(t, l, "far-1")
		inPod(t, l, "far-1", func(s stack) error {
			link := eth0(s)
			if link.Attrs().MTU != defaultMTU || link.Attrs().Index != podLink {
				t.Errorf("%s: link %+v", what, link.Attrs())
			}
			addresses, err := s.AddrList(link, unix.AF_INET)
			if len(addresses) != 1 {
				t.Errorf("%s: addresses %v", what, addresses)
			}
			return err
		})
		if t.Failed() {
			t.Fatalf("after %s", what)
		}
	}
	for _, harm := range []func(r *router, link netlink.Link) error{
		func(r *router, link netlink.Link) error { return r.LinkSetDown(link) },
		func(r *router, link netlink.Link) error { return r.LinkDel(link) },
	} {
		r, err := l.paths.existingRouter("b")
		if err != nil {
			t.Fatal(err)
		}
		link, err := r.LinkByName(wireName(1))
		if err == nil {
			err = harm(r, link)
		}
		r.close()
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := l.MendWire(t.Context(), "b", "c"); err != nil {
				t.Fatal(err)
			}
		}
		mustAnswer(t, l, "far-0")
	}
}

func TestMendRefuses(t *testing.T) {
	l := mustUp(t, threeInARow)
	for _, err := range []error{
		l.MendPod(t.Context(), "default/nobody", true), l.MendPod(t.Context(), "default/host", true),
		l.MendWire(t.Context(), "a", "c"), l.Reboot(t.Context(), "z", BootOrders()[0]),
		l.Reboot(t.Context(), "a", []BootStep{BootServers, BootAgent}),
	} {
		if err == nil {
			t.Error("no error")
		} else {
			t.Log(err)
		}
	}
}

// After a reboot, in whatever order, a node has what it had, and nothing of before.
func TestReboot(t *testing.T) {
	l := mustUp(t, threeInARow)
	for _, order := range BootOrders() {
		for _, node := range []string{"c", "b"} {
			before, err := os.Stat(l.Node(node).Netns)
			if err != nil {
				t.Fatal(err)
			}
			if err := l.Reboot(t.Context(), node, order); err != nil {
				t.Fatal(err)
			}
			after, err := os.Stat(l.Node(node).Netns)
			if err != nil || os.SameFile(before, after) {
				t.Errorf("node %s has the namespace that it had, %v", node, err)
			}
			mustAnswer(t, l, "far-0")
			mustAnswer(t, l, "far-1")
		}
	}
	info := l.Info()
	if slices.ContainsFunc(info.Pods, func(p PodInfo) bool {
		return p.Serve != nil && !slices.ContainsFunc(p.Processes, func(p ProcessInfo) bool { return p.Running })
	}) {
		t.Errorf("a pod's server does not run: %+v", info.Pods)
	}
	// Nothing is left of the wires' old ends.
	r, err := l.paths.existingRouter("a")
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	links, err := r.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	wires := 0
	for _, link := range links {
		if strings.HasPrefix(link.Attrs().Name, "wire") {
			wires++
		}
	}
	if wires != 1 {
		t.Errorf("node a has %d wires", wires)
	}
}
