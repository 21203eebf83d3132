// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/plane"
)

// The life of an agent on a real kernel. The test's namespaces are the node's; a pod is one more network namespace, at
// a veth, with processes in the node's cgroup; the endpoint of the service is a server on the node's end of that veth.

const (
	podAddress  = "10.9.0.1"
	nodeAddress = "10.9.0.254"
	serviceText = `
apiVersion: v1
kind: Service
metadata: {name: echo}
spec:
  clusterIP: 10.96.0.10
  sessionAffinity: ClientIP
  ports: [{name: tcp, port: 7}, {name: udp, port: 7, protocol: UDP}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: echo-1, labels: {kubernetes.io/service-name: echo}}
addressType: IPv4
ports: [{name: tcp, port: 9000}, {name: udp, port: 9001, protocol: UDP}]
endpoints: [{addresses: [10.9.0.254]}]
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec: {nodeName: n1, containers: [{name: main}]}
---
apiVersion: v1
kind: Pod
metadata: {name: proxied}
spec: {nodeName: n1, containers: [{name: main}, {name: istio-proxy}]}
`
)

// node is where everything is.
type node struct {
	dir, cgroup, admin, source, netns string
}

func needNode(t *testing.T) {
	t.Helper()
	if os.Getenv(roleVariable) == roleNode {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("needs root")
	}
	t.Skip("needs root")
}

func newNode(t *testing.T) *node {
	t.Helper()
	needNode(t)
	n := &node{admin: filepath.Join(t.TempDir(), "run", "admin.sock"), source: filepath.Join(t.TempDir(), "source")}
	bpffs := t.TempDir()
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("bpf", bpffs, "bpf", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(bpffs, 0); err != nil {
			t.Error(err)
		}
	})
	n.dir = filepath.Join(bpffs, "evenkeel")
	root, err := plane.CgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	if n.cgroup, err = os.MkdirTemp(root, "evenkeel-cmd-test-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(n.cgroup); err != nil {
			t.Error(err)
		}
	})
	if err := os.Mkdir(n.source, 0o700); err != nil {
		t.Fatal(err)
	}
	n.put(t, serviceText)
	t.Cleanup(func() {
		if got := evenkeel(t, "uninstall", "--pin-dir", n.dir, "--take-over"); got.code != 0 {
			t.Errorf("uninstall: %+v", got)
		}
	})
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		t.Fatal(err)
	}
	n.newPod(t)
	n.serve(t)
	return n
}

func (n *node) put(t *testing.T, text string) {
	t.Helper()
	next := filepath.Join(n.source, ".next")
	if err := os.WriteFile(next, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, filepath.Join(n.source, "all.yaml")); err != nil {
		t.Fatal(err)
	}
}

// newPod makes the pod's namespace and its veth.
func (n *node) newPod(t *testing.T) {
	t.Helper()
	n.netns = filepath.Join(t.TempDir(), "netns")
	if err := os.WriteFile(n.netns, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	step := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	step(inThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		return unix.Mount("/proc/thread-self/ns/net", n.netns, "", unix.MS_BIND, "")
	}))
	t.Cleanup(func() { step(unix.Unmount(n.netns, unix.MNT_DETACH)) })
	ns, err := os.Open(n.netns)
	step(err)
	defer ns.Close()
	veth := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: "veth0"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(ns.Fd())),
	}
	step(netlink.LinkAdd(veth))
	t.Cleanup(func() { step(netlink.LinkDel(veth)) })
	step(configure("veth0", nodeAddress))
	step(n.inPod(func() error { return configure("eth0", podAddress) }))
}

func configure(name, address string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	a, err := netlink.ParseAddr(address + "/24")
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(l, a); err != nil {
		return err
	}
	return netlink.LinkSetUp(l)
}

// inThread runs do on a thread that ends with it. The first thread of a process does not end, so it is not used.
func inThread(do func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			err := inThread(do)
			runtime.UnlockOSThread()
			done <- err
			return
		}
		done <- do()
	}()
	return <-done
}

func (n *node) inPod(do func() error) error {
	return inThread(func() error {
		ns, err := os.Open(n.netns)
		if err != nil {
			return err
		}
		defer ns.Close()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		return do()
	})
}

// serve answers what it is sent, on the node's end of the veth.
func (n *node) serve(t *testing.T) {
	t.Helper()
	listener, err := net.Listen("tcp", nodeAddress+":9000")
	if err != nil {
		t.Fatal(err)
	}
	packets, err := net.ListenPacket("udp", nodeAddress+":9001")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close(); packets.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn) // the client sees it if not all came back
			}()
		}
	}()
	go func() {
		buffer := make([]byte, 1500)
		for {
			size, from, err := packets.ReadFrom(buffer)
			if err != nil {
				return
			}
			_, _ = packets.WriteTo(buffer[:size], from) // the client waits for it
		}
	}()
}
