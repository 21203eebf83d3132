// SPDX-License-Identifier: Apache-2.0

package upgrade_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/upgrade"
)

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -no-global-types -target bpfel -go-package upgrade_test -output-suffix _test counter testdata/counter.c -- -O2 -g -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter

// counting is a whole data plane: one hook, one map. Two releases of it differ in how they count.
func counting(step uint64) upgrade.DataPlane {
	return upgrade.DataPlane{
		Object: _CounterBytes,
		Hooks: []upgrade.Hook{{
			Name: "packets", Entry: "enter_packets", Program: "count_packets", At: upgrade.Tcx, Attach: ebpf.AttachTCXIngress,
		}},
		Configure: func(spec *ebpf.CollectionSpec) error { return spec.Variables["step"].Set(step) },
	}
}

// TestCounter is the shortest data plane that can be upgraded: a counter at an interface, whose next release counts
// double, and is rolled back. The count goes on.
func TestCounter(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	runtime.LockOSThread() // never unlocked: the thread goes with its namespace
	bpffs := t.TempDir()
	must(t, unix.Mount("bpf", bpffs, "bpf", 0, ""))
	t.Cleanup(func() { must(t, unix.Unmount(bpffs, unix.MNT_DETACH)) })
	must(t, unix.Unshare(unix.CLONE_NEWNET))
	must(t, exec.Command("ip", "link", "set", "lo", "up").Run())

	open := func(step uint64) *upgrade.Store {
		s, err := upgrade.Open(t.Context(), counting(step), upgrade.Options{
			Dir: filepath.Join(bpffs, "counter"), Accept: upgrade.AcceptAny,
		})
		must(t, err)
		return s
	}
	counted := func(s *upgrade.Store) (n uint64) {
		must(t, s.Serving().Maps["counts"].Lookup(uint32(0), &n))
		return n
	}
	expect := func(s *upgrade.Store, more uint64) {
		t.Helper()
		before := counted(s)
		send(t)
		if got := counted(s) - before; got != more {
			t.Errorf("a packet counts %d, not %d", got, more)
		}
	}

	s := open(1) // makes it
	must(t, s.Pods.Attach(t.Context(), upgrade.Target{Pod: "lo", Hook: "packets", Interface: 1}))
	expect(s, 1)
	must(t, s.Close()) // as the death of the process would: the data plane goes on

	s = open(2) // finds the other release
	_, err := s.Upgrade(t.Context(), upgrade.Attempt{})
	must(t, err)
	expect(s, 2)
	must(t, s.Rollback(t.Context(), upgrade.Attempt{}, "counts double"))
	expect(s, 1)
	must(t, s.Close())
	must(t, upgrade.Uninstall(t.Context(), upgrade.Options{Dir: filepath.Join(bpffs, "counter")}))
}

// send sends one packet by the loopback, to itself.
func send(t *testing.T) {
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	must(t, err)
	defer c.Close()
	_, err = c.WriteTo([]byte("one"), c.LocalAddr())
	must(t, err)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
