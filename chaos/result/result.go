// SPDX-License-Identifier: Apache-2.0

// Package result is what a spec of the suites has found, in a form that reports are made of: the flows it watched, the
// faults it injected and when, gaps against the budget, leaks, and what is worth reading when it failed.
//
// Each spec carries one [Result] as the report entry named [Entry], whether it passes or fails; [Of] takes it out of a
// Ginkgo report, of this process or decoded from JSON. The JSON form is that of the types here, version [Version]:
// fields are added without a new version, never renamed or given another meaning.
//
// Whether a spec has passed is Ginkgo's to say (SpecReport.State), and why not (SpecReport.Failure). A Result has no
// verdict of its own: a control passes because its flows broke.
//
// All fields of type int64 that are called a time are nanoseconds of CLOCK_MONOTONIC, as in recordings
// (netsim/flow/record): whatever happened on the machine can be laid beside each other. Fields that end in _ms are
// milliseconds.
package result

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/onsi/ginkgo/v2/types"

	"github.com/evenkeel/evenkeel/netsim/flow/record"
)

// Entry is the name of the report entry with the Result of a spec.
const Entry = "result"

// Version is that of the JSON form.
const Version = 1

// Result is what one spec has found.
type Result struct {
	Version int `json:"version"`
	// Dataplane is what the labs of the spec ran: none, evenkeel, ambient or ztunnel.
	Dataplane string `json:"dataplane"`
	// Seed decides everything that the spec draws at random.
	Seed uint64 `json:"seed"`
	// Repeat is the shortest command line that does the same again; empty if running the spec with Seed does.
	Repeat string `json:"repeat,omitempty"`
	// Runs are in the order in which they began.
	Runs []*Run `json:"runs,omitempty"`
	// Leaks names what was left behind, one per object: "map 17 services", "process 4711 evenkeel agent". A spec with
	// leaks fails.
	Leaks []string `json:"leaks,omitempty"`
	// Figures are numbers that the spec has measured or counted, in the order in which it did.
	Figures []Figure `json:"figures,omitempty"`
	// Evidence is for people: the ends of agents' logs, the difference of two inventories. In a spec that passed it is
	// empty but for what is worth knowing all the same, such as why a run was void.
	Evidence []Evidence `json:"evidence,omitempty"`
}

// Figure is a number.
type Figure struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	// Unit is "ms", "s" or "" for what is counted.
	Unit string `json:"unit,omitempty"`
}

// Evidence is a text, of one or many lines.
type Evidence struct {
	Name string `json:"name"`
	Text string `json:"text"`
}

// Run is one run of flows: they are established, watched without a fault, then with faults, and judged.
type Run struct {
	// Name tells it from others of the spec.
	Name string `json:"name"`
	// Dataplane is that of the lab, where it is not the spec's.
	Dataplane string `json:"dataplane,omitempty"`
	// Control marks a run whose flows have to break or stall: they do not count as failures of the data plane.
	Control bool `json:"control,omitempty"`
	// Discarded marks a run that was void and was done again: nothing of it counts.
	Discarded bool `json:"discarded,omitempty"`
	// Untimed marks a run in which nothing is concluded from how late frames were: processes stood at each of their calls.
	Untimed bool `json:"untimed,omitempty"`
	// Wall is when it began, on the wall's clock; Start is the same instant and End its end, as times.
	Wall  time.Time `json:"wall"`
	Start int64     `json:"start"`
	End   int64     `json:"end"`
	// Phases are in order; each lasts until the next, the last until End.
	Phases []record.Phase `json:"phases,omitempty"`
	// Faults are in the order in which they began.
	Faults []*Fault `json:"faults,omitempty"`
	// Report has the verdicts of all flows and probes, the budget and the worst gap. It is nil if the run was never
	// judged, because the spec failed before.
	Report *record.Report `json:"report,omitempty"`
	// Timeline has a row for each of Report.Details, in that order.
	Timeline *Timeline `json:"timeline,omitempty"`
	// Recordings is the directory of the recordings if they were kept: of runs of a spec that failed.
	Recordings string `json:"recordings,omitempty"`
}

// Fault is a fault from its injection to its healing.
type Fault struct {
	// Spec is the fault as evenkeel-chaos fault inject takes it: "kill agent/a after=3ms". What is done without the
	// registry of faults has a word of its own.
	Spec string `json:"spec"`
	// Name and Group are those of its kind: "kill", "process".
	Name  string `json:"name"`
	Group string `json:"group,omitempty"`
	// Start is when the injection began, Injected when it was done, Heal when healing began, End when that was done. A
	// time that never came is 0.
	Start    int64 `json:"start"`
	Injected int64 `json:"injected,omitempty"`
	Heal     int64 `json:"heal,omitempty"`
	End      int64 `json:"end,omitempty"`
	// Active is how often it had bitten when it was healed. It is above 0 or there is an error.
	Active uint64 `json:"active"`
	// Frames is how many frames of flows were answered meanwhile, to a quarter of a second: the traffic that it was done to.
	Frames uint64 `json:"frames,omitempty"`
	Error  string `json:"error,omitempty"`
}

// Timeline is how late the frames of each flow were over a run, for a picture.
type Timeline struct {
	// Start is the time at which the first step begins, Step how long one lasts, in nanoseconds.
	Start int64 `json:"start"`
	Step  int64 `json:"step"`
	// Worst has a row per flow, and in it for each step the worst lateness in microseconds of what came then; -1 if
	// nothing came. A flow that sends less often than once in a step has such steps without a fault.
	Worst [][]int32 `json:"worst_us"`
	// Histogram counts all frames of all flows by lateness: element 0 below 1 us, element i from 2^(i-1) to 2^i us.
	Histogram []uint64 `json:"histogram,omitempty"`
	// Gaps are the frames that were later than the budget, outside of phases without a fault; the worst thousand.
	Gaps []Gap `json:"gaps,omitempty"`
}

// Gap is a frame that was too late.
type Gap struct {
	// Flow is the index of its row.
	Flow int `json:"flow"`
	// Due is the time at which it should have been received, By how much later it was.
	Due int64   `json:"due"`
	By  float64 `json:"by_ms"`
}

// Totals sums up results.
type Totals struct {
	Flows         record.Counts `json:"flows"`
	WorstGap      float64       `json:"worst_gap_ms"`
	Budget        float64       `json:"budget_ms"` // the largest
	Void          int           `json:"void"`      // runs
	WrongVerdicts uint64        `json:"wrong_verdicts"`
	Leaks         int           `json:"leaks"`
}

// Add adds a result: its leaks, and its runs but for controls and those that were discarded.
func (t *Totals) Add(r *Result) {
	t.Leaks += len(r.Leaks)
	for _, run := range r.Runs {
		if run.Control || run.Discarded || run.Report == nil {
			continue
		}
		t.Flows.Broken += run.Report.Flows.Broken
		t.WrongVerdicts += run.Report.WrongVerdicts
		if run.Untimed {
			t.Flows.Intact += run.Report.Flows.Intact + run.Report.Flows.Stalled
			continue
		}
		t.Flows.Intact += run.Report.Flows.Intact
		t.Flows.Stalled += run.Report.Flows.Stalled
		t.WorstGap = max(t.WorstGap, run.Report.WorstGap)
		t.Budget = max(t.Budget, run.Report.Budget)
		if run.Report.Void {
			t.Void++
		}
	}
}

// String is what Ginkgo prints of an entry that it is told to print.
func (r *Result) String() string {
	var t Totals
	t.Add(r)
	return fmt.Sprintf("%d runs: %d flows intact, %d stalled, %d broken, worst gap %.1f ms of %.1f ms, %d leaks",
		len(r.Runs), t.Flows.Intact, t.Flows.Stalled, t.Flows.Broken, t.WorstGap, t.Budget, t.Leaks)
}

// Of returns the result that a spec carries, nil if it has none: it was skipped, or is no spec.
func Of(spec types.SpecReport) (*Result, error) {
	for _, entry := range spec.ReportEntries {
		if entry.Name != Entry {
			continue
		}
		if r, is := entry.GetRawValue().(*Result); is {
			return r, nil
		}
		r := &Result{}
		if err := json.Unmarshal([]byte(entry.Value.AsJSON), r); err != nil {
			return nil, fmt.Errorf("decode result of spec %q: %w", spec.FullText(), err)
		}
		return r, nil
	}
	return nil, nil
}
