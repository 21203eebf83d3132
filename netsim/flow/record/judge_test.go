// SPDX-License-Identifier: Apache-2.0

package record

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

const ms = int64(time.Millisecond)

// story is a run of one flow, 10 ms apart, from 1 s to 3 s: a phase without a fault until 2 s, then one with.
type story struct {
	*testing.T
	buffer bytes.Buffer
	w      *Writer
}

func newStory(t *testing.T, flow Flow) *story {
	s := &story{T: t}
	s.w = NewWriter(&s.buffer, "client", "")
	s.w.Write(&flow)
	s.w.Write(&Phase{Time: 1000 * ms, Name: "before", FaultFree: true})
	s.w.Write(&Phase{Time: 2000 * ms, Name: "kill"})
	s.w.Write(&Window{Flow: flow.ID, From: 1100 * ms, To: 1900 * ms, Sent: 80, Received: 80, Worst: ms})
	return s
}

var trickle = Flow{ID: 1, Name: "a", Kind: "trickle", Period: 10 * ms, First: 1000 * ms}

// late adds a frame that was due at and came late by some.
func (s *story) late(due, by int64) *story {
	s.w.Write(&Late{Flow: 1, Due: due, Received: due + by, Lateness: by})
	return s
}

func (s *story) done() *story {
	s.w.Write(&Done{Flow: 1, Stop: 3000 * ms, Sent: 200, Received: 200})
	return s
}

func (s *story) judge() *Report {
	s.Helper()
	if err := s.w.Finish(); err != nil {
		s.Fatal(err)
	}
	r, err := Judge(&s.buffer, "story")
	if err != nil {
		s.Fatal(err)
	}
	return r
}

func TestVerdictOfARun(t *testing.T) {
	for name, c := range map[string]struct {
		tell    func(*story)
		run     Verdict
		flow    Verdict
		why     string
		reasons int
	}{
		"nothing happens": {func(s *story) { s.done() }, Passed, Intact, "", 0},
		"late within the floor of the budget": {
			func(s *story) { s.late(2500*ms, 10*ms).done() }, Passed, Intact, "", 0},
		"later than that": {
			func(s *story) { s.late(2500*ms, 10*ms+1000).done() }, Fell, Stalled, "10.0 ms beyond the schedule", 0},
		"a baseline of 5 ms makes a budget of 15": {
			func(s *story) { s.late(1500*ms, 5*ms).late(2500*ms, 15*ms).done() }, Passed, Intact, "", 0},
		"and not of more": {
			func(s *story) { s.late(1500*ms, 5*ms).late(2500*ms, 16*ms).done() }, Fell, Stalled, "15.0 ms are allowed", 0},
		"a baseline of 7 ms makes the run void": {
			func(s *story) { s.late(1500*ms, 7*ms).done() }, Void, Intact, "", 1},
		"a frame that is late across the border is of the fault": {
			func(s *story) { s.late(1995*ms, 12*ms).done() }, Fell, Stalled, "", 0},
		"what is late before the first phase is set-up": {
			func(s *story) { s.late(500*ms, 100*ms).done() }, Passed, Intact, "", 0},
		"a lost frame": {func(s *story) {
			s.w.Write(&Break{Flow: 1, Time: 2500 * ms, Reason: Lost, Sequence: 7, Detail: "on the way"})
			s.done()
		}, Fell, Broken, "lost at frame 7 in phase kill: on the way", 0},
		"broken and void": {func(s *story) {
			s.late(1500*ms, 70*ms)
			s.w.Write(&Break{Flow: 1, Time: 2500 * ms, Reason: Reset})
			s.done()
		}, Fell, Broken, "reset", 1},
		"the client was killed": {func(*story) {

		}, Fell, Broken, "the recording ends", 0},
		"breaks that have no line": {func(s *story) {
			s.w.Write(&Done{Flow: 1, Sent: 200, Breaks: 2})
		}, Fell, Broken, "", 0},
		"late because the machine stood still": {func(s *story) {
			s.w.Write(&Stall{Role: "server", From: 2505 * ms, To: 2512 * ms})
			s.w.Write(&Stall{Role: "client", From: 2508 * ms, To: 2514 * ms})
			s.late(2500*ms, 18*ms).done()
		}, Passed, Intact, "", 0},
		"but later than that explains": {func(s *story) {
			s.w.Write(&Stall{Role: "server", From: 2505 * ms, To: 2512 * ms})
			s.w.Write(&Stall{Role: "client", From: 2508 * ms, To: 2514 * ms})
			s.late(2500*ms, 20*ms).done()
		}, Fell, Stalled, "11.0 ms beyond", 0},
		"the machine stood still too long to tell": {func(s *story) {
			s.w.Write(&Stall{Role: "server", From: 2500 * ms, To: 2521 * ms})
			s.late(2500*ms, 12*ms).done()
		}, Void, Intact, "", 1},
		"a frame is late while a processor stands still": {func(s *story) {
			s.w.Write(&Standstill{Processor: 1, From: 2501 * ms, To: 2508 * ms})
			s.late(2500*ms, 17*ms).done()
		}, Void, Stalled, "17.0 ms beyond", 1},
		"but later than that explains, whatever stood still": {func(s *story) {
			s.w.Write(&Standstill{Processor: 0, From: 2501 * ms, To: 2508 * ms})
			s.w.Write(&Standstill{Processor: 1, From: 2502 * ms, To: 2508 * ms})
			s.late(2500*ms, 18*ms).done()
		}, Fell, Stalled, "18.0 ms beyond", 0},
		"a processor stands still and nothing is late": {func(s *story) {
			s.w.Write(&Standstill{Processor: 1, From: 2501 * ms, To: 2599 * ms})
			s.late(2500*ms, 9*ms).done()
		}, Passed, Intact, "", 0},
		"a processor and a process stand still": {func(s *story) {
			s.w.Write(&Stall{Role: "client", From: 2501 * ms, To: 2506 * ms})
			s.w.Write(&Standstill{Processor: 1, From: 2504 * ms, To: 2512 * ms})
			s.late(2500*ms, 21*ms).done()
		}, Void, Stalled, "16.0 ms beyond", 1},
		"a hole of twice the budget hides behind a process that did not run": {func(s *story) {
			s.w.Write(&Stall{Role: "client", From: 2505 * ms, To: 2517 * ms})
			s.late(2500*ms, 21*ms).done()
		}, Void, Intact, "", 1},
		"one frame is explained by that, another is not": {func(s *story) {
			s.w.Write(&Stall{Role: "client", From: 2505 * ms, To: 2517 * ms})
			s.w.Write(&Standstill{Processor: 0, From: 2721 * ms, To: 2728 * ms})
			s.late(2500*ms, 21*ms).late(2600*ms, 25*ms).late(2720*ms, 12*ms).done()
		}, Fell, Stalled, "25.0 ms beyond", 0},
		"fewer frames than scheduled": {func(s *story) {
			s.w.Write(&Done{Flow: 1, Stop: 3000 * ms, Sent: 190})
		}, Fell, Broken, "schedule", 0},
		"the client itself was late": {func(s *story) {
			s.w.Write(&Blind{Flow: 1, Due: 2500 * ms, By: 21 * ms})
			s.done()
		}, Void, Intact, "", 1},
		"but within the limit": {func(s *story) {
			s.w.Write(&Blind{Flow: 1, Due: 2500 * ms, By: 19 * ms})
			s.done()
		}, Passed, Intact, "", 0},
		"or while nothing is judged": {func(s *story) {
			s.w.Write(&Blind{Flow: 1, Due: 1500 * ms, By: 99 * ms})
			s.done()
		}, Passed, Intact, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStory(t, trickle)
			c.tell(s)
			r := s.judge()
			if r.Verdict != c.run || r.Details[0].Verdict != c.flow || len(r.VoidReasons) != c.reasons {
				t.Errorf("%+v", r)
			}
			if !strings.Contains(r.Details[0].Why, c.why) {
				t.Errorf("why: %q, want %q", r.Details[0].Why, c.why)
			}
		})
	}
}

func TestUpgradeMayBeLater(t *testing.T) {
	for limit, want := range map[int64]Verdict{0: Void, LimitUpgrade: Passed} {
		s := newStory(t, trickle)
		s.w.Write(&Phase{Time: 2100 * ms, Name: "upgrade", Limit: limit})
		if r := s.late(1500*ms, 15*ms).done().judge(); r.Verdict != want {
			t.Errorf("limit %d: %+v", limit, r)
		}
	}
}

func TestARunWithoutBaselineIsVoid(t *testing.T) {
	s := &story{T: t}
	s.w = NewWriter(&s.buffer, "client", "")
	s.w.Write(&trickle)
	s.w.Write(&Phase{Time: 1000 * ms, Name: "kill"})
	s.w.Write(&Window{Flow: 1, From: 1100 * ms, To: 1900 * ms, Received: 80})
	if r := s.done().judge(); r.Verdict != Void {
		t.Errorf("%+v", r)
	}
}

func TestProbes(t *testing.T) {
	probe := trickle
	probe.Kind, probe.Must = "probe", MustFail
	s := newStory(t, probe)
	s.w.Write(&Break{Flow: 1, Time: 2500 * ms, Reason: Allowed, Sequence: 3})
	s.w.Write(&Done{Flow: 1, Stop: 3000 * ms, Sent: 200, Received: 199, Breaks: 1})
	if r := s.judge(); r.WrongVerdicts != 1 || r.Verdict != Fell || r.Probes != 1 || r.Flows.Broken != 0 {
		t.Errorf("%+v", r)
	}
	s = newStory(t, probe)
	s.w.Write(&Break{Flow: 1, Time: 2500 * ms, Reason: Unproved, Detail: "EMFILE"})
	s.w.Write(&Done{Flow: 1, Stop: 3000 * ms, Sent: 200, Received: 199, Breaks: 1, Unproved: 1})
	if r := s.judge(); r.WrongVerdicts != 0 || r.Verdict != Void || len(r.VoidReasons) != 1 {
		t.Errorf("%+v", r)
	}
}
