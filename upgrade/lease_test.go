// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestParseLocks(t *testing.T) {
	const text = `1: POSIX  ADVISORY  WRITE 11 00:2a:1234 0 EOF
2: FLOCK  ADVISORY  READ 12 00:2a:1234 0 EOF
3: FLOCK  ADVISORY  WRITE 13 00:2a:12345 0 EOF
4: FLOCK  ADVISORY  WRITE 14 01:2a:1234 0 EOF
5: -> FLOCK  ADVISORY  WRITE 15 00:2a:1234 0 EOF
6: FLOCK  ADVISORY  WRITE -1 00:2a:1234 0 EOF
7: FLOCK  ADVISORY  WRITE 4711 00:2a:1234 0 EOF
nonsense
`
	pid, err := parseLocks(strings.NewReader(text), unix.Mkdev(0, 0x2a), 1234)
	if err != nil || pid != 4711 {
		t.Errorf("the holder is %d, %v; want 4711", pid, err)
	}
	if pid, err := parseLocks(strings.NewReader(text), unix.Mkdev(0, 0x2b), 1234); err != nil || pid != 0 {
		t.Errorf("a lock that nobody holds is held by %d, %v", pid, err)
	}
}

func FuzzParseLocks(f *testing.F) {
	f.Add("1: FLOCK  ADVISORY  WRITE 4711 00:2a:1234 0 EOF\n", uint32(0), uint32(0x2a), uint64(1234))
	f.Add("1: -> FLOCK ADVISORY WRITE 1 08:01:5 0 EOF", uint32(8), uint32(1), uint64(5))
	f.Add("FLOCK WRITE", uint32(0), uint32(0), uint64(0))
	f.Fuzz(func(t *testing.T, text string, major, minor uint32, inode uint64) {
		pid, err := parseLocks(strings.NewReader(text), unix.Mkdev(major, minor), inode)
		if pid < 0 || err != nil && pid != 0 {
			t.Errorf("pid %d, %v", pid, err)
		}
		if pid != 0 && !strings.Contains(text, "FLOCK") {
			t.Errorf("a holder was found where there is no lock: %d", pid)
		}
	})
}

// Of two owners the second is told who the first is, and changes nothing.
func TestSecondOwnerIsRefused(t *testing.T) {
	b := newBed(t)
	first := start(t, job{Do: "open", Dir: b.dir, Cgroup: b.cgroup}, "")
	first.done(t)
	before := b.inspect(t)
	for what, open := range map[string]func() error{
		"open":      func() error { s, err := Open(t.Context(), tinyPlane(_TinyBytes), b.options()); closeIf(s); return err },
		"uninstall": func() error { return Uninstall(t.Context(), b.options()) },
	} {
		var held *HeldError
		if err := open(); !errors.As(err, &held) || held.PID != first.Process.Pid || held.Command == "" {
			t.Errorf("%s: %v; want a HeldError about pid %d", what, err, first.Process.Pid)
		}
	}
	after := b.inspect(t)
	if after.Epoch != before.Epoch || len(after.Steps) != len(before.Steps) {
		t.Errorf("a refused owner left steps: epoch %d, %d steps; before %d, %d",
			after.Epoch, len(after.Steps), before.Epoch, len(before.Steps))
	}
	first.end(t)
	b.open(t, _TinyBytes)
}

func closeIf(s *Store) {
	if s != nil {
		s.Close()
	}
}

// Within one process, too, and a take-over does not make it kill itself.
func TestSecondOwnerInOneProcess(t *testing.T) {
	b := newBed(t)
	b.open(t, _TinyBytes)
	options := b.options()
	options.TakeOver = b.holder(t)
	s, err := Open(t.Context(), tinyPlane(_TinyBytes), options)
	closeIf(s)
	var held *HeldError
	if !errors.As(err, &held) || held.PID != os.Getpid() {
		t.Errorf("%v; want a HeldError about this process", err)
	}
}

// A holder that is stopped cannot give anything up; a take-over kills it and goes on.
func TestTakeOverOfAStoppedHolder(t *testing.T) {
	b := newBed(t)
	holder := start(t, job{Do: "open", Dir: b.dir, Cgroup: b.cgroup}, "")
	holder.done(t)
	if err := holder.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	options := b.options()
	options.TakeOver = b.holder(t)
	s, err := Open(t.Context(), tinyPlane(_TinyBytes), options)
	if err != nil {
		t.Fatalf("take over: %v", err)
	}
	defer s.Close()
	if _, killed := holder.done(t); !killed {
		t.Error("the holder was not killed")
	}
	if s.Epoch() != 2 {
		t.Errorf("epoch %d after a take-over", s.Epoch())
	}
	b.sound(t)
}

// Whoever came after the one that was to be killed is not killed for it: of several that replace one process, the first
// stays.
func TestTakeOverOfTheIncumbentOnly(t *testing.T) {
	b := newBed(t)
	first := start(t, job{Do: "open", Dir: b.dir, Cgroup: b.cgroup}, "")
	first.done(t)
	options := b.options()
	options.TakeOver = b.holder(t)
	first.end(t)
	second := start(t, job{Do: "open", Dir: b.dir, Cgroup: b.cgroup}, "")
	second.done(t)
	s, err := Open(t.Context(), tinyPlane(_TinyBytes), options)
	closeIf(s)
	var held *HeldError
	if !errors.As(err, &held) || held.PID != second.Process.Pid {
		t.Errorf("%v; want a HeldError about pid %d", err, second.Process.Pid)
	}
	second.end(t) // it lives
}

// holder is whom a take-over that begins now would replace.
func (b *bed) holder(t *testing.T) *Holder {
	t.Helper()
	h, err := FindHolder(b.dir)
	if err != nil || h == nil {
		t.Fatalf("holder of the lease: %+v, %v", h, err)
	}
	return h
}

// Of two that take over at once one wins. The other is told by whom the lease is held now, at once and not after it has
// waited for the dead.
func TestTwoTakeOversAtOnce(t *testing.T) {
	b := newBed(t)
	first := start(t, job{Do: "open", Dir: b.dir, Cgroup: b.cgroup}, "")
	first.done(t)
	killed := first.Process.Pid
	if err := kill(t.Context(), b.dir, killed); err != nil {
		t.Fatal(err)
	}
	if _, dead := first.done(t); !dead {
		t.Fatal("the holder was not killed")
	}
	winner := start(t, job{Do: "open", Dir: b.dir, Cgroup: b.cgroup}, "")
	winner.done(t)
	if err := kill(t.Context(), b.dir, killed); err != nil { // as the loser does, whom the winner was too fast for
		t.Fatal(err)
	}
	begin := time.Now()
	_, err := inherit(t.Context(), b.dir, killed)
	var held *HeldError
	if !errors.As(err, &held) || held.PID != winner.Process.Pid {
		t.Errorf("%v; want a HeldError about pid %d", err, winner.Process.Pid)
	}
	if took := time.Since(begin); took > takeOverTime/2 {
		t.Errorf("it took %v to tell", took)
	}
	winner.end(t)
}

// A take-over gives up when it is told to, though the process that keeps the lock cannot be killed: a lock that a
// child of the holder inherited belongs to nobody whom /proc/locks names.
func TestTakeOverEnds(t *testing.T) {
	b := newBed(t)
	b.open(t, _TinyBytes).Close()
	dir, err := os.Open(b.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	holder := start(t, job{Do: "connect", Busy: 1}, "")
	holder.done(t)
	// This process takes the lock, but another is said to have it.
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, err := openLocked(ctx, b.dir, unix.LOCK_EX); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting for a lock did not end with its context: %v", err)
	}
	if err := kill(ctx, b.dir, holder.Process.Pid); err != nil {
		t.Fatal(err)
	}
	holder.end(t) // it lives: the lock is not its
}

// Whoever waits for a lock on a directory that is removed and made again gets the lock on the new one.
func TestLockOfADirectoryMadeAgain(t *testing.T) {
	b := newBed(t)
	if err := os.Mkdir(b.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	first, err := openLocked(t.Context(), b.dir, unix.LOCK_EX)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan *os.File)
	go func() {
		second, err := openLocked(t.Context(), b.dir, unix.LOCK_EX)
		if err != nil {
			t.Error(err)
		}
		got <- second
	}()
	if err := os.Remove(b.dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(b.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	first.Close()
	second := <-got
	defer second.Close()
	if !same(second, b.dir) {
		t.Error("the lock is on a directory that is gone")
	}
}
