// SPDX-License-Identifier: Apache-2.0

package result

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/onsi/ginkgo/v2/types"

	"github.com/evenkeel/evenkeel/netsim/flow/record"
)

const ms = int64(time.Millisecond)

// recorded writes a run of two flows: one goes silent in its second half second, the other has one late frame there.
func recorded(t *testing.T, from int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "client.ndjson")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	w := record.NewWriter(file, "client", "")
	w.Write(&record.Phase{Time: from, Name: "quiet", FaultFree: true})
	w.Write(&record.Phase{Time: from + 500*ms, Name: "kill"})
	for id, name := range map[uint64]string{1: "silent", 2: "late"} {
		w.Write(&record.Flow{ID: id, Name: name, Period: 10 * ms, First: from})
	}
	for i := range int64(4) {
		for id := uint64(1); id <= 2; id++ {
			window := &record.Window{Flow: id, From: from + i*250*ms, To: from + (i+1)*250*ms, Sent: 25, Received: 25, Worst: ms}
			if id == 1 && i >= 2 {
				window.Received = 0
			}
			w.Write(window)
		}
	}
	for _, due := range []int64{100, 600} {
		w.Write(&record.Late{Flow: 2, Due: from + due*ms, Received: from + (due+30)*ms, Lateness: 5*ms + due*ms/20})
	}
	for id := uint64(1); id <= 2; id++ {
		w.Write(&record.Done{Flow: id, Stop: from + 1000*ms, Sent: 100, Received: 100, Histogram: []uint64{1, 0, id}})
	}
	if err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTimeline(t *testing.T) {
	const from = int64(1e12)
	file := recorded(t, from)
	r := &Run{Start: from}
	var err error
	if r.Report, err = record.JudgeFiles(file); err != nil {
		t.Fatal(err)
	}
	r.Phases = []record.Phase{{Time: from, FaultFree: true}, {Time: from + 500*ms}}
	if err := r.Draw(file); err != nil {
		t.Fatal(err)
	}
	silent, late := 0, 1
	if r.Report.Details[0].Name == "late" {
		silent, late = 1, 0
	}
	want := make([][]int32, 2)
	want[silent] = []int32{1000, 1000, -1, -1, -1}
	want[late] = []int32{10000, 1000, 35000, 1000, -1}
	if diff := cmp.Diff(want, r.Timeline.Worst); diff != "" {
		t.Errorf("worst (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]uint64{2, 0, 3}, r.Timeline.Histogram); diff != "" {
		t.Errorf("histogram (-want +got):\n%s", diff)
	}
	// A baseline of 10 ms makes a budget of 30: only the second late frame is a gap, and of the phase with the fault.
	if diff := cmp.Diff([]Gap{{Flow: late, Due: from + 600*ms, By: 35}}, r.Timeline.Gaps); diff != "" {
		t.Errorf("gaps (-want +got):\n%s", diff)
	}
}

// A result is the same when it comes out of a report that was written and read again.
func TestOf(t *testing.T) {
	r := &Result{Version: Version, Dataplane: "evenkeel", Seed: 7, Leaks: []string{"map 17 services"}}
	spec := types.SpecReport{ReportEntries: types.ReportEntries{
		{Name: "other", Value: types.WrapEntryValue(1)}, {Name: Entry, Value: types.WrapEntryValue(r)},
	}}
	r.Runs = append(r.Runs, &Run{Name: "kill", Wall: time.Unix(1, 0).UTC(), Start: 5, Faults: []*Fault{{Spec: "kill agent/a", Start: 6}},
		Report: &record.Report{Flows: record.Counts{Intact: 3, Broken: 1}, Budget: 10, WorstGap: 4}})
	text, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	var read types.SpecReport
	if err := json.Unmarshal(text, &read); err != nil {
		t.Fatal(err)
	}
	for name, from := range map[string]types.SpecReport{"of this process": spec, "read": read} {
		got, err := Of(from)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(r, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if none, err := Of(types.SpecReport{}); none != nil || err != nil {
		t.Errorf("of a spec without one: %v, %v", none, err)
	}
}

func TestTotals(t *testing.T) {
	report := &record.Report{Flows: record.Counts{Intact: 2, Stalled: 1, Broken: 1}, Budget: 12, WorstGap: 40, Void: true,
		WrongVerdicts: 3}
	var got Totals
	got.Add(&Result{Leaks: []string{"a", "b"}, Runs: []*Run{
		{Report: report}, {Report: report, Control: true}, {Report: report, Discarded: true}, {},
	}})
	want := Totals{Flows: report.Flows, WorstGap: 40, Budget: 12, Void: 1, WrongVerdicts: 3, Leaks: 2}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
