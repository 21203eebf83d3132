// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"time"

	"charm.land/lipgloss/v2"

	"github.com/evenkeel/evenkeel/netsim"
	"github.com/evenkeel/evenkeel/netsim/flow/record"
)

// aDemo has seen connections of one side break and come back.
func aDemo() *demo {
	d := &demo{start: time.Now()}
	d.sides = []*side{newSide(netsim.Evenkeel, "", "", &d.mu), newSide(netsim.Ambient, "", "", &d.mu)}
	for i, s := range d.sides {
		s.watched = true
		for j, r := range s.rows {
			s.see(&record.Flow{ID: uint64(j), Name: r.Name})
			for range 100 {
				s.see(&record.Window{Flow: uint64(j), Sent: 25, Received: 25})
				r.mark()
			}
			if i == 1 {
				s.see(&record.Break{Flow: uint64(j)})
				s.see(&record.Break{Flow: uint64(j)})
				r.mark()
			}
		}
	}
	for range 9 {
		d.event("kill -9: agents and proxies of both nodes are dead, %s", strings.Repeat("and ", 30))
	}
	return d
}

// A line that wraps takes two rows of the terminal, and drawing over it would leave debris behind.
func TestPictureFits(t *testing.T) {
	d := aDemo()
	for _, width := range []int{1, 20, leastSide - 1, leastSide, 80, 2*leastSide + gutter - 1, 2*leastSide + gutter, 120, 250} {
		picture := d.picture(width)
		for line := range strings.Lines(picture) {
			if n := lipgloss.Width(strings.TrimSuffix(line, "\n")); n > width {
				t.Errorf("%d columns: line of %d: %q", width, n, line)
			}
		}
		beside := strings.Contains(strings.Split(picture, "\n")[2], "in a process")
		if beside != (width >= 2*leastSide+gutter) {
			t.Errorf("%d columns: beside each other: %v", width, beside)
		}
	}
	if picture := d.picture(120); !strings.Contains(picture, "0 connections lost") ||
		!strings.Contains(picture, "6 connections lost") || !strings.Contains(picture, "▪") || !strings.Contains(picture, "x") {
		t.Errorf("picture:\n%s", picture)
	}
}

// What broke is shown as broken until another connection takes its place, and counts once.
func TestRowBreaks(t *testing.T) {
	s := newSide(netsim.Ambient, "", "", &sync.Mutex{})
	r := s.rows[0]
	s.see(&record.Flow{ID: 7, Name: r.Name})
	s.see(&record.Window{Flow: 7, Sent: 25, Received: 25})
	r.mark()
	s.see(&record.Break{Flow: 7})
	r.mark()
	r.mark()
	s.see(&record.Break{Flow: 7})
	s.see(&record.Flow{ID: 8, Name: r.Name + again + "2"})
	s.see(&record.Window{Flow: 8, Sent: 25, Received: 25})
	r.mark()
	r.mark() // nothing was counted meanwhile
	want := []mark{markGood, markBad, markBad, markBad, markBad}
	if r.lost != 1 || r.received != 50 || len(r.marks) != len(want) {
		t.Errorf("%+v", r)
	}
	for range 4 {
		s.see(&record.Window{Flow: 8, Sent: 25, Received: 25})
		r.mark()
	}
	if last := r.marks[len(r.marks)-1]; last != markGood {
		t.Errorf("connected again: %v", last)
	}
}

func TestPlainDemo(t *testing.T) {
	d := aDemo()
	var out bytes.Buffer
	d.out = &out
	d.event("kill -9")
	if want := "evenkeel: 0 connections lost; ambient: 6 connections lost\n"; !strings.Contains(out.String(), want) {
		t.Errorf("lines: %s", out.String())
	}
	if table := d.table(); strings.Count(table, "\n") != 1+len(connections()) || strings.Contains(table, "\x1b") {
		t.Errorf("table:\n%s", table)
	}
}

// Every connection has a port at the service of the demo's topology.
func TestDemoTopology(t *testing.T) {
	for _, plane := range []netsim.Dataplane{netsim.Evenkeel, netsim.Ambient} {
		topology, err := demoTopology(plane)
		if err != nil {
			t.Fatal(err)
		}
		if topology.Dataplane != plane {
			t.Errorf("data plane %s, not %s", topology.Dataplane, plane)
		}
		if ambient := topology.Name == "demo-ambient"; ambient != (plane == netsim.Ambient) {
			t.Errorf("lab of %s is %s", plane, topology.Name)
		}
	}
}

// A client says a moment later that its connection broke in a fault: until then nothing is missing, and all the same
// nothing is well.
func TestWellMeansAnsweredSince(t *testing.T) {
	s := newSide(netsim.Ambient, "", "", new(sync.Mutex))
	s.rows, s.watched = s.rows[:1], true
	first := &record.Flow{ID: 1, Name: s.rows[0].Name}
	s.see(first)
	s.see(&record.Window{Flow: 1, From: record.Now() - int64(time.Second), Received: 1})
	s.heal()
	if len(s.missing().Flows) != 0 || s.well() {
		t.Error("before the client says anything it is well, or known to be broken")
	}
	s.see(&record.Break{Flow: 1})
	if s.well() || len(s.missing().Flows) != 1 || len(s.missing().Flows) != 0 {
		t.Error("what broke is not opened once")
	}
	s.see(&record.Flow{ID: 2, Name: first.Name + again + "2"})
	if s.well() {
		t.Error("a connection is well that was not answered yet")
	}
	s.see(&record.Window{Flow: 2, From: record.Now() + 1, Received: 1})
	if !s.well() {
		t.Error("what was answered is not well")
	}
}
