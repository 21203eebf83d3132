// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// connected makes sockets in a cgroup that stay connected, and so stamped, until the test ends.
func (b bed) connected(t *testing.T) *child {
	t.Helper()
	c := start(t, job{Do: "hold", Busy: 5}, b.cgroup)
	c.done(t)
	return c
}

func holdSockets(n int) error {
	for range n {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		if err := unix.Connect(fd, &unix.SockaddrInet4{Port: 9, Addr: [4]byte(net.IPv4(127, 0, 0, 1).To4())}); err != nil {
			return os.NewSyscallError("connect", err)
		}
	}
	return nil
}

// The numbers of generations come round only after sockets that run as floor have been stamped so.
func TestSweepBeforeNumbersComeRound(t *testing.T) {
	b := newBed(t)
	b.open(t, _TinyBytes).Close()
	held := b.connected(t)
	s := b.openAny(t, tinyPlane(_TinyOtherBytes))
	mustUpgrade(t, s)
	mustOutlive(t, s)
	phase := s.view.super.phase()
	if err := s.view.super.swapPhase(phase, phase.withLast(generations/2-1)); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s = b.openAny(t, tinyPlane(_TinyBytes))
	floor := s.Word().Serve() // the sockets are stamped 1, and run it as the floor
	swept := 0
	s.journal.trace = func(step Step, _ string) {
		if step == StepSweep {
			swept++
		}
	}
	mustUpgrade(t, s)
	if swept != 2 || s.Word().Serve() < generations/2 {
		t.Errorf("%d sweeps, then %v", swept, s.Word())
	}
	stamps, err := s.eachStamp(t.Context(), "list")
	if err != nil || len(stamps) < 10 {
		t.Fatalf("%v, %v", stamps, err)
	}
	for i := 0; i < len(stamps); i += 2 {
		if n := uint16(stamps[i]) | uint16(stamps[i+1])<<8; n != floor {
			t.Errorf("a socket is stamped %d, not %d", n, floor)
		}
	}
	held.end(t)
}

// mustOutlive leaves only what serves.
func mustOutlive(t *testing.T, s *Store) {
	t.Helper()
	if err := s.RetireOthers(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// A generation that sockets run is not retired by time; one that none runs is.
func TestExpire(t *testing.T) {
	b := newBed(t)
	b.open(t, _TinyBytes).Close()
	held := b.connected(t)
	s := b.openAny(t, tinyPlane(_TinyOtherBytes))
	mustUpgrade(t, s)
	if retired, err := s.Expire(t.Context(), 1<<40); err != nil || len(retired) > 0 || s.view.super.phase().Previous() != 1 {
		t.Errorf("before its time: %v, %v", retired, err)
	}
	if retired, err := s.Expire(t.Context(), 0); err != nil || len(retired) > 0 {
		t.Errorf("while sockets run it: %v, %v", retired, err)
	}
	held.end(t)
	eventually(t, "nothing runs generation 1", func() bool {
		retired, err := s.Expire(t.Context(), 0)
		return err == nil && len(retired) == 1 && retired[0] == 1
	})
	b.sound(t)
	if n := len(b.inspect(t).Generations); n != 1 {
		t.Errorf("%d generations are left", n)
	}
}
