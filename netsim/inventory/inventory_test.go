// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/netsim"
)

// A goroutine that enters a namespace on the main thread would take the whole process along.
func init() { runtime.LockOSThread() }

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "holder" { // of a map that has no pin, until its standard input ends
		_, err := ebpf.NewMap(&ebpf.MapSpec{Name: "held", Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
		fmt.Fprintln(os.Stdout, "ready", err)
		_, _ = os.Stdin.Read(make([]byte, 1))
		return
	}
	os.Exit(m.Run())
}

func TestDifference(t *testing.T) {
	before := Inventory{{Kind: Map, Name: "a", Number: 1}, {Kind: Map, Name: "a", Number: 2}, {Kind: Pin, Name: "/n/gen/1/maps/a", Number: 7}, {Kind: Process, Name: "p", Number: 10}}
	after := Inventory{{Kind: Map, Name: "a", Number: 1}, {Kind: Map, Name: "b", Number: 2}, {Kind: Pin, Name: "/n/gen/2/maps/a", Number: 9}, {Kind: Process, Name: "p", Number: 11}}
	gone, added := Difference(before, after)
	want := []string{"- map a (2)", "- pin /n/gen/1/maps/a (7)", "- process p (10)", "+ map b (2)",
		"+ pin /n/gen/2/maps/a (9)", "+ process p (11)"}
	if diff := cmp.Diff(want, Lines(gone, added)); diff != "" {
		t.Error(diff)
	}
	gone, added = Difference(before.Only(Process).Steady(), after.Only(Process).Steady())
	if len(gone)+len(added) > 0 {
		t.Errorf("processes are not steady: %v", Lines(gone, added))
	}
	gone, added = Difference(before.ByName(), after.ByName())
	if diff := cmp.Diff([]string{"- map a", "+ map b"}, Lines(gone, added)); diff != "" {
		t.Error(diff)
	}
	if gone, added := Difference(before, before); gone != nil || added != nil {
		t.Errorf("of itself: %v %v", gone, added)
	}
}

// places makes directories as those of a lab.
func places(t *testing.T) netsim.Places {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("inventories need root")
		}
		t.Skip("inventories need root: run make test")
	}
	p := netsim.Places{Dir: t.TempDir(), Pins: t.TempDir()}
	p.Namespaces = filepath.Join(p.Dir, "ns")
	if err := os.Mkdir(p.Namespaces, 0o755); err != nil {
		t.Fatal(err)
	}
	all, err := readMounts()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		if m.fstype == "cgroup2" && p.Cgroup == "" {
			p.Cgroup = filepath.Join(m.point, fmt.Sprintf("inventory-test-%d", os.Getpid()))
		}
	}
	if err := os.Mkdir(p.Cgroup, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Rmdir(p.Cgroup); err != nil {
			t.Error(err)
		}
	})
	if err := unix.Mount("inventory-test", p.Pins, "bpf", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(p.Pins, 0); err != nil {
			t.Error(err)
		}
	})
	return p
}

func take(t *testing.T, p netsim.Places) Inventory {
	t.Helper()
	i, err := takeAt(p)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// expect checks that exactly these names were added to before, is alive, and that nothing of it is once it was undone.
func expect(t *testing.T, p netsim.Places, before Inventory, undo func(), names ...string) {
	t.Helper()
	gone, added := Difference(before, take(t, p))
	var got []string
	for _, o := range added {
		if o.Kind != Descriptor && o.Kind != Interface {
			got = append(got, fmt.Sprintf("%s %s", o.Kind, o.Name))
		}
	}
	if diff := cmp.Diff(names, got); diff != "" || len(gone) > 0 {
		t.Errorf("(-want +got):\n%s\ngone: %v", diff, gone)
	}
	alive, err := added.Alive(p)
	if err != nil || len(alive) < len(names) {
		t.Errorf("of %v only %v are alive: %v", added, alive, err)
	}
	undo()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); ; <-tick.C {
		if alive, err = added.Alive(p); err != nil || len(alive) == 0 {
			break
		}
		if time.Now().After(deadline) {
			break
		}
	}
	if err != nil || len(alive) > 0 {
		t.Errorf("undone, and still alive: %v, %v", alive, err)
	}
	if gone, added := Difference(before, take(t, p)); len(gone)+len(added) > 0 {
		t.Errorf("undone: %v", Lines(gone, added))
	}
}

func TestPin(t *testing.T) {
	p := places(t)
	before := take(t, p)
	m, err := ebpf.NewMap(&ebpf.MapSpec{Name: "pinned", Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.Pin(filepath.Join(p.Pins, "x")); err != nil {
		t.Fatal(err)
	}
	expect(t, p, before, func() {
		if err := m.Unpin(); err != nil {
			t.Fatal(err)
		}
		m.Close()
	}, "map pinned", "pin /x")
}

// start starts a process in the cgroup that holds a map, in a namespace of its own if the flags say so.
func start(t *testing.T, p netsim.Places, flags uintptr) (stop func()) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(p.Cgroup)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	cmd := exec.Command(self, "holder")
	cmd.SysProcAttr = &unix.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd()), Cloneflags: flags}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	text := make([]byte, 100)
	if n, err := out.Read(text); string(text[:n]) != "ready <nil>\n" {
		t.Fatal(string(text[:n]), err)
	}
	return func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestProcessThatHoldsAMap(t *testing.T) {
	p := places(t)
	before := take(t, p)
	where := filepath.Base(p.Cgroup)
	stop := start(t, p, 0)
	expect(t, p, before, stop, "map held of /"+where+" inventory.test holder", "process /"+where+" inventory.test holder")
}

func TestNamespaces(t *testing.T) {
	p := places(t)
	before := take(t, p)
	path := filepath.Join(p.Namespaces, "mounted")
	if err := os.WriteFile(path, nil, 0o444); err != nil {
		t.Fatal(err)
	}
	failed := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
		}
		failed <- err
	}()
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	expect(t, p, before, func() {
		if err := unix.Unmount(path, 0); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}, "mount {run}/ns/mounted nsfs", "namespace mounted")

	where := filepath.Base(p.Cgroup)
	stop := start(t, p, unix.CLONE_NEWNET)
	name := "process /" + where + " inventory.test holder"
	expect(t, p, before, stop, "map held of /"+where+" inventory.test holder", "namespace of "+name, name)
}

func TestCgroup(t *testing.T) {
	p := places(t)
	before := take(t, p)
	below := filepath.Join(p.Cgroup, "below")
	if err := os.Mkdir(below, 0o755); err != nil {
		t.Fatal(err)
	}
	expect(t, p, before, func() {
		if err := os.Remove(below); err != nil {
			t.Fatal(err)
		}
	}, "cgroup /below")
}

func TestOfThisMachine(t *testing.T) {
	p := places(t)
	spaces, err := allNamespaces()
	if err != nil || len(spaces) == 0 {
		t.Errorf("%v, %v", spaces, err)
	}
	if objects, err := allBPF(); err != nil {
		t.Errorf("%v, %v", objects, err)
	}
	for _, o := range take(t, p) {
		if strings.Contains(o.Name, p.Dir) || strings.Contains(o.Name, p.Pins) {
			t.Errorf("the name of %v is not the same in every lab", o)
		}
	}
}
