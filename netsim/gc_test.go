// SPDX-License-Identifier: Apache-2.0

package netsim

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const crowded = `
  nodes:
  - {name: a, podCIDRs: [10.10.1.0/24, "fd00:10:1::/64"]}
  - {name: b, podCIDRs: [10.10.2.0/24, "fd00:10:2::/64"]}
  wires:
  - {between: [a, b]}
  pods:
  - {name: quiet, node: a, count: 20}
  - {name: busy, node: b, count: 4, serve: ["tcp :9000"], command: [sleep, "1000"]}
`

// topologyFile writes a topology for another process to read.
func topologyFile(t *testing.T, name, spec string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "lab.yaml")
	if err := os.WriteFile(path, []byte(topologyText(name, spec)), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// sim runs a command of asEvenkeel in a process of its own.
func sim(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(testOptions(t).Binary, append([]string{"sim"}, args...)...)
	cmd.Stderr = os.Stderr
	return cmd
}

// mustCollect does what Collect does, with one lab only: tests must not decide about the labs of others. It tells whether
// it removed the lab; another process that collects may have been faster.
func mustCollect(t *testing.T, name string) (removed bool) {
	t.Helper()
	names, err := collect(t.Context(), testOptions(t), []string{name})
	if err != nil {
		t.Fatal(err)
	}
	return len(names) > 0
}

// However far up or down had come when it was killed, what it left is garbage, and goes to the last.
func TestCollectAfterKill(t *testing.T) {
	needRoot(t)
	name := labName()
	file := topologyFile(t, name, crowded)
	p, err := newPaths(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := Down(context.Background(), name, testOptions(t)); err != nil {
			t.Error(err)
		}
	})
	for _, moment := range []int{1, 2, 3, 5, 12, 28, 29, 31, 33} { // nodes, pods, the last pod, servers, the last server
		killing(t, moment, "up-detached", file)
		mustCollect(t, name)
		mustBeGoneSoon(t, p)
		if t.Failed() {
			t.Fatalf("up died at step %d", moment)
		}
	}
	for moment := 1; moment <= 7; moment++ { // after each part
		if err := sim(t, "up-detached", file).Run(); err != nil {
			t.Fatal(err)
		}
		killing(t, moment, "down", name)
		mustCollect(t, name)
		mustBeGoneSoon(t, p)
		if t.Failed() {
			t.Fatalf("down died at step %d", moment)
		}
	}
}

// killing runs a command that must kill itself at a step.
func killing(t *testing.T, step int, args ...string) {
	t.Helper()
	cmd := sim(t, args...)
	cmd.Env = append(os.Environ(), dieAt+"="+strconv.Itoa(step))
	var exit *exec.ExitError
	if err := cmd.Run(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("%q should have died at step %d: %v", args, step, err)
	}
}

// The same at any moment, also between steps. A lab that is whole by then is not garbage.
func TestCollectAfterKillAtAnyMoment(t *testing.T) {
	needRoot(t)
	name := labName()
	file := topologyFile(t, name, crowded)
	p, err := newPaths(name)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := sim(t, "up-detached", file).Run(); err != nil {
		t.Fatal(err)
	}
	takes := time.Since(start)
	for range 6 {
		mustDown(t, name)
		mustBeGone(t, p)
		after := rand.N(takes)
		cmd := sim(t, "up-detached", file)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait() // killed or done: the test looks at what is there
		timer.Stop()
		_, err := Attach(name, testOptions(t))
		whole := err == nil
		mustCollect(t, name)
		if _, err := Attach(name, testOptions(t)); whole && err != nil {
			t.Errorf("killed after %v: the lab was whole, gc removed it", after)
		}
		if !whole {
			mustBeGoneSoon(t, p)
		}
		if t.Failed() {
			t.Fatalf("up was killed after %v", after)
		}
	}
	mustDown(t, name)
	mustBeGone(t, p)
}

// mustBeGoneSoon is mustBeGone for a lab that is garbage: another process that collects may be at work on it.
func mustBeGoneSoon(t *testing.T, p paths) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); <-tick.C {
		if _, err := os.Lstat(p.dir()); errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	mustBeGone(t, p)
}

// A lab goes with the process that made it, a detached one does not.
func TestCollectAsksForTheOwner(t *testing.T) {
	needRoot(t)
	for _, c := range []struct {
		command string
		garbage bool
	}{{"up", true}, {"up-detached", false}} {
		name := labName()
		if err := sim(t, c.command, topologyFile(t, name, crowded)).Run(); err != nil {
			t.Fatal(err)
		}
		p, err := newPaths(name)
		if err != nil {
			t.Fatal(err)
		}
		removed := mustCollect(t, name)
		if c.garbage {
			if _, err := Attach(name, testOptions(t)); !removed && err == nil {
				t.Errorf("%s: gc has left a lab whose process has ended", c.command)
				mustDown(t, name)
			}
			mustBeGoneSoon(t, p)
			continue
		}
		if _, err := Attach(name, testOptions(t)); err != nil {
			t.Errorf("%s: gc has removed a lab that belongs to no process: %v", c.command, err)
		}
		mustDown(t, name)
		mustBeGone(t, p)
	}
}

// A lab of a process that has ended, whole or not, does not keep its name from the next; any other does.
func TestUpAfterAnOwnerThatHasEnded(t *testing.T) {
	needRoot(t)
	name := labName()
	file := topologyFile(t, name, crowded)
	topology := mustParse(t, name, crowded)
	up := func() *Lab {
		t.Helper()
		l, err := Up(t.Context(), topology, testOptions(t))
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	if err := sim(t, "up", file).Run(); err != nil {
		t.Fatal(err)
	}
	l := up()
	if _, err := Up(t.Context(), topology, testOptions(t)); !errors.Is(err, ErrExists) {
		t.Errorf("up of a lab whose owner lives: %v", err)
	}
	if _, err := Attach(name, testOptions(t)); err != nil {
		t.Errorf("that has removed it: %v", err)
	}
	if err := l.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	killing(t, 12, "up", file)
	if err := up().Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := sim(t, "up-detached", file).Run(); err != nil {
		t.Fatal(err)
	}
	if _, err := Up(t.Context(), topology, testOptions(t)); !errors.Is(err, ErrExists) {
		t.Errorf("up of a lab that belongs to no process: %v", err)
	}
	mustDown(t, name)
	mustBeGone(t, l.paths)
}

func mustDown(t *testing.T, name string) {
	t.Helper()
	if err := Down(t.Context(), name, testOptions(t)); err != nil {
		t.Fatal(err)
	}
}

func TestCollectLeavesWhatIsInUse(t *testing.T) {
	l := mustUp(t, crowded)
	if mustCollect(t, l.Name()) {
		t.Error("gc removed the lab of a process that runs")
	}
	// A lab that is going, but somebody is at work on it.
	unlock, err := l.paths.lock()
	if err != nil {
		t.Fatal(err)
	}
	self, err := ProcessOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if err := l.paths.note(actDown, false, self); err != nil {
		t.Fatal(err)
	}
	if mustCollect(t, l.Name()) {
		t.Error("gc removed a lab that another is removing")
	}
	if err := l.Down(t.Context()); !errors.Is(err, ErrBusy) {
		t.Errorf("down of a lab that another is removing: %v", err)
	}
	unlock()
	mustCollect(t, l.Name())
	mustBeGoneSoon(t, l.paths)
}

// A process id comes back; the time of its start does not.
func TestProcessIsNotItsSuccessor(t *testing.T) {
	self, err := ProcessOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if !self.Alive() {
		t.Error("this process is not alive")
	}
	other := Process{self.PID, self.Start + 1}
	if other.Alive() {
		t.Error("another process of this id is alive")
	}
	if err := other.Signal(unix.SIGKILL); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("signal to another process of this id: %v", err)
	}
}

// A process whose main thread has ended is not alive, and not gone: its other threads hold what it has.
func TestWaitIsForAllThreads(t *testing.T) {
	cmd := exec.Command("/proc/self/exe", "leaderless")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := ProcessOf(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); p.Alive() && time.Now().Before(deadline); <-tick.C {
	}
	if p.Alive() {
		t.Error("it has its main thread still")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := p.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wait for a process that has threads: %v", err)
	}
	stdin.Close()
	if err := p.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func TestUpIsCancelled(t *testing.T) {
	needRoot(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	options := testOptions(t)
	options.Progress = func(stage string, done, _ int) {
		if stage == "pods" && done == 5 {
			cancel()
		}
	}
	name := labName()
	_, err := Up(ctx, mustParse(t, name, crowded), options)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled up: %v", err)
	}
	p, err := newPaths(name)
	if err != nil {
		t.Fatal(err)
	}
	mustBeGone(t, p)
}
