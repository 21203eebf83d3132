// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func names(calls []Call) []string {
	var all []string
	for _, c := range calls {
		all = append(all, c.String())
	}
	return all
}

// An uninterrupted run shows each call with what it is done to, and ends as it would have.
func TestTrace(t *testing.T) {
	dir := t.TempDir()
	s := supervise(t, nil, "steps", dir)
	if status := s.end(t); !status.Exited() || status.ExitStatus() != 0 {
		t.Fatalf("status %#x", status)
	}
	want := []string{
		"mkdirat DIR/a", "renameat DIR/a DIR/b", "symlinkat b DIR/c", "unlinkat DIR/c", "unlinkat DIR/b",
	}
	got := names(s.Calls())
	for i := range got { // architectures differ in which of two calls they have
		got[i] = strings.ReplaceAll(got[i], dir, "DIR")
		name, rest, _ := strings.Cut(got[i], " ")
		if !strings.HasSuffix(name, "at") {
			name = strings.Replace(name, "rmdir", "unlink", 1) + "at"
		}
		got[i] = name + " " + rest
	}
	if !slices.Equal(got, want) {
		t.Errorf("calls\n%q, want\n%q", got, want)
	}
	for i, c := range s.Calls() {
		if c.Number != i+1 || !c.Done || c.Errno != 0 || c.Refused {
			t.Errorf("call %+v", c)
		}
	}
}

// made counts the directories in dir.
func made(t testing.TB, dir string) int {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// Killed before the k-th call a process has done k-1, killed after it k: with threads that compete all the while.
func TestKillIsExact(t *testing.T) {
	for k := 1; k <= 40; k += 3 {
		for when, want := range map[When]int{Before: k - 1, After: k} {
			dir := t.TempDir()
			s := supervise(t, AtNumber(k, when, Kill()), "mkdir", dir, "8", "400")
			if status := s.end(t); status.Signal() != unix.SIGKILL {
				t.Fatalf("killed %v call %d: status %#x", when, k, status)
			}
			if got := made(t, dir); got != want {
				t.Errorf("killed %v call %d: it has made %d directories, want %d", when, k, got, want)
			}
			m := s.Acted()
			if m == nil || m.Call.Number != k || m.When != when || m.Call.Done != (when == After) {
				t.Errorf("acted %v", m)
			}
		}
	}
}

// The control of TestKillIsExact: whoever kills when he sees the k-th directory comes too late.
func TestKillFromOutsideIsNotExact(t *testing.T) {
	needRoot(t)
	late := 0
	for range 10 {
		dir := t.TempDir()
		cmd := exec.Command("/proc/self/exe", "mkdir", dir, "8", "100000")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		deadline := time.Now().Add(10 * time.Second)
		for made(t, dir) < 10 && time.Now().Before(deadline) { // as fast as it can
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // killed
		if made(t, dir) > 10 {
			late++
		}
	}
	if late == 0 {
		t.Error("killed from outside it was exact 10 of 10 times: the test above shows nothing")
	}
	t.Logf("too late %d of 10 times", late)
}

// A process stops as a whole before or after a call, and goes on when told to.
func TestStop(t *testing.T) {
	for when, want := range map[When]int{Before: 9, After: 10} {
		dir := t.TempDir()
		s := supervise(t, AtNumber(10, when, Stop()), "mkdir", dir, "8", "400")
		select {
		case <-s.Halted():
		case <-time.After(10 * time.Second):
			t.Fatal("it has not stopped")
		}
		eventually(t, "all threads have stopped", func() bool { return strings.Trim(states(t, s.PID()), "tT") == "" })
		if got := made(t, dir); got != want {
			t.Errorf("stopped %v call 10: it has made %d directories, want %d", when, got, want)
		}
		s.Resume()
		if status := s.end(t); !status.Exited() || status.ExitStatus() != 0 {
			t.Errorf("status %#x after it was resumed", status)
		}
		if got := made(t, dir); got != 400 {
			t.Errorf("resumed it has made %d directories in all", got)
		}
		if got := len(s.Calls()); got != 400 {
			t.Errorf("%d calls", got)
		}
	}
}

// A wedged thread holds nobody else up.
func TestWedge(t *testing.T) {
	dir := t.TempDir()
	s := supervise(t, AtNumber(10, Before, Wedge()), "mkdir", dir, "4", "200")
	eventually(t, "all but one call are done", func() bool { return made(t, dir) == 199 })
	select {
	case <-s.Halted():
	default:
		t.Error("nothing was wedged")
	}
	s.Resume()
	if status := s.end(t); !status.Exited() || made(t, dir) != 200 {
		t.Errorf("status %#x, %d directories", status, made(t, dir))
	}
}

// A refused call is not done, and its process gets the error.
func TestRefuse(t *testing.T) {
	dir := t.TempDir()
	s := supervise(t, AtNumber(2, Before, Refuse(unix.ENOSYS)), "mkdir", dir, "1", "5")
	if status := s.end(t); !status.Exited() || status.ExitStatus() != 1 {
		t.Errorf("status %#x", status)
	}
	calls := s.Calls()
	if len(calls) != 2 || !calls[1].Refused || calls[1].Errno != unix.ENOSYS || made(t, dir) != 1 {
		t.Errorf("%d directories, calls %+v", made(t, dir), calls)
	}
}

// A point is found again in another run, however the threads take turns.
func TestPoints(t *testing.T) {
	first := t.TempDir()
	s := supervise(t, nil, "mkdir", first, "4", "6")
	s.end(t)
	points := Points(s.Calls())
	if len(points) != 12 {
		t.Fatalf("%d points", len(points))
	}
	for _, p := range points {
		dir := t.TempDir()
		p.Call = strings.ReplaceAll(p.Call, first, dir)
		s := supervise(t, At(p, Kill()), "mkdir", dir, "4", "6")
		if status := s.end(t); status.Signal() != unix.SIGKILL {
			t.Fatalf("kill %v: status %#x", p, status)
		}
		_, name, _ := strings.Cut(p.Call, " ")
		_, err := os.Stat(name)
		if exists := err == nil; exists != (p.When == After) {
			t.Errorf("killed %v: it exists: %v", p, exists)
		}
	}
}

// Calls of bpf(2) are told by command and by the name of what they change, and can be stopped at like any other.
func TestBPF(t *testing.T) {
	needRoot(t)
	pin := filepath.Join("/sys/fs/bpf", fmt.Sprintf("supervised_%d", os.Getpid()))
	t.Cleanup(func() { os.Remove(pin) })
	s := supervise(t, nil, "map", pin)
	if status := s.end(t); !status.Exited() || status.ExitStatus() != 0 {
		t.Fatalf("status %#x", status)
	}
	var got []string
	for _, c := range s.Calls() {
		if c.Errno == 0 && c.Name != "bpf PROG_LOAD" && c.String() != "bpf MAP_CREATE Array feature_test" {
			got = append(got, c.String())
		}
	}
	want := []string{"bpf MAP_CREATE Array supervised", "bpf OBJ_PIN " + pin, "bpf MAP_UPDATE_ELEM supervised"}
	if len(got) < 4 || !slices.Equal(got[len(got)-4:len(got)-1], want) || !strings.HasSuffix(got[len(got)-1], pin) {
		t.Errorf("calls %q", names(s.Calls()))
	}
	for when, exists := range map[When]bool{Before: false, After: true} {
		k := supervise(t, At(Point{"bpf OBJ_PIN " + pin, 1, when}, Kill()), "map", pin)
		if status := k.end(t); status.Signal() != unix.SIGKILL {
			t.Errorf("killed %v the pin: status %#x", when, status)
		}
		if _, err := os.Lstat(pin); (err == nil) != exists {
			t.Errorf("killed %v the pin: %v", when, err)
		}
		_ = os.Remove(pin) // if it is there
	}
}

// What a child does is not the process's, and is let through.
func TestChildren(t *testing.T) {
	dir := t.TempDir()
	s := supervise(t, AtNumber(1, Before, Kill()), "children", dir)
	if status := s.end(t); !status.Exited() || status.ExitStatus() != 0 {
		t.Errorf("status %#x", status)
	}
	if made(t, dir) != 1 || len(s.Calls()) != 0 {
		t.Errorf("%d directories, calls %v", made(t, dir), s.Calls())
	}
}

// Only what was asked for is watched; what cannot be is refused by name.
func TestCallsAreChosen(t *testing.T) {
	needRoot(t)
	if _, err := New(Options{Calls: []string{"read"}}); err == nil {
		t.Error("it watches read(2)")
	}
	if _, err := newFilter([]string{"bpf"}); err != nil {
		t.Error(err)
	}
}

// A supervisor whose process never comes ends all the same.
func TestCloseWithoutProcess(t *testing.T) {
	needRoot(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Options{Self: []string{self, "supervise"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.Wait(t.Context()); err == nil {
		t.Error("no process and no error")
	}
}

func eventually(t testing.TB, what string, true func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); !true(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not after 10 s: %s", what)
		}
	}
}

// When Close returns, no thread of the process is left to hold anything.
func TestCloseEndsTheProcess(t *testing.T) {
	for range 10 {
		dir := t.TempDir()
		s := supervise(t, AtNumber(10, Before, Stop()), "mkdir", dir, "8", "400")
		<-s.Halted()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if got := states(t, s.PID()); got != "Z" {
			t.Errorf("closed, its threads are %s", got)
		}
	}
}
