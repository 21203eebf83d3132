// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// TestMain makes the test binary the shim and the processes that are supervised.
func TestMain(m *testing.M) {
	if len(os.Args) < 2 || strings.HasPrefix(os.Args[1], "-test.") {
		os.Exit(m.Run())
	}
	if err := asProcess(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func asProcess(what string, args []string) error {
	switch what {
	case "supervise":
		return Main(args)
	case "mkdir": // DIR THREADS COUNT: makes COUNT directories from THREADS threads
		threads, _ := strconv.Atoi(args[1])
		count, _ := strconv.Atoi(args[2])
		return makeDirectories(args[0], threads, count)
	case "steps": // DIR: one call of each kind
		return steps(args[0])
	case "map": // PIN: makes a map, pins and fills it
		return pinMap(args[0])
	case "children": // DIR: makes a directory by a child
		self, err := os.Executable()
		if err != nil {
			return err
		}
		return exec.Command(self, "mkdir", args[0], "1", "1").Run()
	}
	return fmt.Errorf("unknown process %q", what)
}

func makeDirectories(dir string, threads, count int) error {
	var next atomic.Int64
	var group sync.WaitGroup
	errs := make(chan error, threads)
	for range threads {
		group.Go(func() {
			for {
				n := next.Add(1)
				if n > int64(count) {
					return
				}
				if err := unix.Mkdir(filepath.Join(dir, strconv.FormatInt(n, 10)), 0o755); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	group.Wait()
	close(errs)
	return <-errs
}

func steps(dir string) error {
	if err := os.Chdir(dir); err != nil {
		return err
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	return errors.Join(
		unix.Mkdir("a", 0o755),
		unix.Rename(at("a"), at("b")),
		unix.Symlink("b", at("c")),
		unix.Unlink(at("c")),
		unix.Rmdir(at("b")),
	)
}

func pinMap(pin string) error {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Name: "supervised", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 2})
	if err != nil {
		return err
	}
	defer m.Close()
	return errors.Join(m.Pin(pin), m.Put(uint32(1), uint64(7)), m.Unpin())
}

// needRoot skips a test that traces and pins where it cannot, and fails it where CI says that it must run.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("seccomp filters and BPF need root")
	}
	t.Skip("seccomp filters and BPF need root: run make test")
}

// supervised is a process of this test binary under supervision.
type supervised struct {
	*Supervisor
	cmd *exec.Cmd
}

func supervise(t testing.TB, decide Decide, args ...string) *supervised {
	t.Helper()
	needRoot(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Options{Self: []string{self, "supervise"}, Decide: decide})
	if err != nil {
		t.Fatal(err)
	}
	line := s.Wrap(append([]string{self}, args...)...)
	cmd := exec.Command(line[0], line[1:]...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if cmd.ProcessState == nil {
			_ = cmd.Wait()
		}
		if stderr.Len() > 0 && t.Failed() {
			t.Log(stderr.String())
		}
		if _, err := os.Stat(s.dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", s.dir, err)
		}
	})
	return &supervised{Supervisor: s, cmd: cmd}
}

// end waits for the end of the process, which its parent must see, too, and returns how it ended.
func (s *supervised) end(t testing.TB) unix.WaitStatus {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	status, err := s.Wait(ctx)
	if err != nil {
		t.Fatalf("wait for supervised process: %v", err)
	}
	_ = s.cmd.Wait() // its error is the status that is compared
	if got := s.cmd.ProcessState.Sys().(syscall.WaitStatus); got != syscall.WaitStatus(status) {
		t.Errorf("the parent sees status %#x, the supervisor %#x", got, status)
	}
	if s.cmd.Process.Pid != s.PID() {
		t.Errorf("the parent has started process %d, supervised is %d", s.cmd.Process.Pid, s.PID())
	}
	return status
}

// states returns the state letter of each thread of a process, proc(5).
func states(t testing.TB, pid int) string {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	var letters []byte
	for _, e := range entries {
		file, err := os.Open(fmt.Sprintf("/proc/%d/task/%s/stat", pid, e.Name()))
		if err != nil {
			continue
		}
		line, _ := bufio.NewReader(file).ReadString('\n')
		file.Close()
		letters = append(letters, line[strings.LastIndexByte(line, ')')+2])
	}
	return string(letters)
}
