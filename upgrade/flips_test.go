// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// flipping is how often the word is changed: EVENKEEL_FLIPS=1000000 goes on for some minutes.
func flipping(t *testing.T) int {
	t.Helper()
	n := 10_000
	if more := os.Getenv("EVENKEEL_FLIPS"); more != "" {
		var err error
		if n, err = strconv.Atoi(more); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// Serve and canary are exchanged, floor kept, under traffic at five hooks: each event of each hook runs one program, once,
// and no socket meets two generations. The controls are what else one might do: entry programs that do not look at the
// stamp, programs exchanged link by link, a slot that is emptied before it is filled, a program that is attached before the
// other is gone.
func TestFlipsUnderLoad(t *testing.T) {
	flips := flipping(t)
	for _, c := range []struct {
		name               string
		gap, double, mixed bool
		flips              int
		flip               func(*testing.T, bed, *Store, int)
		ignoreStamp        bool
	}{
		{name: "by the word", flips: flips, flip: flipWord},
		{name: "control: stamps ignored", flips: 2000, flip: flipWord, ignoreStamp: true, mixed: true},
		{name: "control: link by link", flips: 2000, flip: flipLinks, mixed: true},
		{name: "control: emptied slot", flips: 500, flip: flipEmptied, gap: true},
		{name: "control: beside", flips: 50, flip: flipBeside, double: true, mixed: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBed(t)
			plane := tinyPlane(_TinyBytes)
			plane.Configure = configureTiny(c.ignoreStamp)
			s, err := Open(t.Context(), plane, b.options())
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if err := s.Load(t.Context(), 2); err != nil {
				t.Fatal(err)
			}
			load := start(t, job{Do: "traffic", Busy: 2, Dir: b.dir}, b.cgroup)
			load.done(t)
			load.attach(t, s)
			load.tell(t, "go")
			answer := make(chan string, 1)
			go func() {
				line, err := load.out.ReadString('\n')
				if err != nil {
					line = err.Error()
				}
				answer <- line
			}()
			line := ""
			seen := func(what tinyTinyTotal) uint64 { return total(t, b.dir, what) }
			enough := func() bool { // events to say something of, and of a control the wrong that it is there for
				return seen(tinyTinyTotalTINY_EVENTS) >= 10_000 && (!c.gap || seen(tinyTinyTotalTINY_MISSED) > 0) &&
					(!c.mixed || seen(tinyTinyTotalTINY_MIXED) > 0)
			}
			given := time.Now().Add(30 * time.Second)
			for i := 0; line == "" && (i < c.flips || !enough() && time.Now().Before(given)); i++ {
				c.flip(t, b, s, i)
				select {
				case line = <-answer:
				default:
				}
			}
			if line == "" {
				load.tell(t, "stop")
				line = <-answer
			}
			var want made
			if err := json.Unmarshal([]byte(line), &want); err != nil {
				t.Fatalf("the traffic ended: %s: %v: %s", line, load.Wait(), load.stderr)
			}
			var got made
			settled := func() bool {
				packets, err := loopbackPackets(load.Process.Pid)
				if err != nil {
					t.Fatal(err)
				}
				ran := want
				ran[tinyTinyHookTINY_TCX] += packets
				got = ranAt(t, s.Generation(1))
				for hook, n := range ranAt(t, s.Generation(2)) {
					got[hook] += n
				}
				if ran[tinyTinyHookTINY_TCX] != got[tinyTinyHookTINY_TCX] {
					return false
				}
				want = ran
				return true
			}
			eventually(t, "every packet has passed", settled)
			load.end(t)
			gaps, doubles := uint64(0), uint64(0)
			for hook := range want[1:] {
				gaps += max(want[hook+1], got[hook+1]) - got[hook+1]
				doubles += max(want[hook+1], got[hook+1]) - want[hook+1]
			}
			mixed, missed := seen(tinyTinyTotalTINY_MIXED), seen(tinyTinyTotalTINY_MISSED)
			first, second := ran(t, s.Generation(1)), ran(t, s.Generation(2))
			t.Logf("%d changes; at hooks %v; %d events by generation 1, %d by 2; %d gaps, %d twice, %d mixed",
				c.flips, want[1:], first, second, gaps, doubles, mixed)
			if c.gap != (gaps > 0) || c.gap != (missed > 0) || c.double != (doubles > 0) || c.mixed != (mixed > 0) {
				t.Errorf("%d events met nothing (%d an empty slot), %d ran twice, %d met another generation than their socket's: "+
					"made %v, ran %v", gaps, missed, doubles, mixed, want[1:], got[1:])
			}
			for hook, n := range want[1:] {
				if n == 0 || first == 0 || second == 0 && !c.gap {
					t.Errorf("hook %d met %d events, generations ran %d and %d: that says nothing", hook+1, n, first, second)
				}
			}
		})
	}
}

func (c *child) tell(t *testing.T, order string) {
	t.Helper()
	if _, err := fmt.Fprintln(c.stdin, order); err != nil {
		t.Fatal(err)
	}
}

// attach attaches the hooks of pods to the child's network namespace.
func (c *child) attach(t *testing.T, s *Store) {
	t.Helper()
	enter := func() error {
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", c.Process.Pid))
		if err != nil {
			return err
		}
		defer ns.Close()
		return unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
	}
	elsewhere(t, enter, func(netns int) {
		const loopback = 1
		if err := errors.Join(
			s.Pods.Attach(t.Context(), Target{Pod: "a", Hook: "lookup", Netns: netns}),
			s.Pods.Attach(t.Context(), Target{Pod: "a", Hook: "tcx", Interface: loopback}),
		); err != nil {
			t.Fatal(err)
		}
	})
}

func flipWord(t *testing.T, _ bed, s *Store, i int) {
	t.Helper()
	word := s.Word()
	if err := s.Swap(word, word.WithServe(uint16(2-i%2)).WithCanary(uint16(1+i%2), 0)); err != nil {
		t.Fatal(err)
	}
}

// flipLinks gives every link of the cgroup another program, one after the other.
func flipLinks(t *testing.T, b bed, s *Store, i int) {
	t.Helper()
	for _, hook := range []string{"connect4", "peername4"} {
		l, err := link.LoadPinnedLink(filepath.Join(b.dir, pathLinks, hook), nil)
		if err != nil {
			t.Fatal(err)
		}
		err = l.Update(s.Generation(uint16(2 - i%2)).Programs["tiny_"+hook])
		if err := errors.Join(err, l.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// flipEmptied takes a program out of its slot before it puts it in again.
func flipEmptied(t *testing.T, _ bed, s *Store, _ int) {
	t.Helper()
	calls, at := s.view.calls["peername4"], Base(1)
	if err := calls.Delete(at); err != nil {
		t.Fatal(err)
	}
	if err := calls.Put(at, s.Generation(1).Programs["tiny_peername4"]); err != nil {
		t.Fatal(err)
	}
}

// flipBeside attaches a program for a moment while that of the other generation is attached.
func flipBeside(t *testing.T, b bed, s *Store, _ int) {
	t.Helper()
	l, err := link.AttachCgroup(link.CgroupOptions{
		Path: b.cgroup, Attach: ebpf.AttachCgroupInet4GetPeername, Program: s.Generation(2).Programs["tiny_peername4"],
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// ranAt is how often the programs of a generation ran, by hook.
func ranAt(t *testing.T, g *Generation) (all made) {
	t.Helper()
	for hook := range all {
		var each []uint64
		if err := g.Maps["tiny_counts"].Lookup(uint32(hook), &each); err != nil {
			t.Fatal(err)
		}
		for _, n := range each {
			all[hook] += n
		}
	}
	return all
}
