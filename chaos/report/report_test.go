// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/onsi/ginkgo/v2/types"

	"github.com/evenkeel/evenkeel/chaos/result"
	"github.com/evenkeel/evenkeel/netsim/flow/record"
)

const ms = int64(time.Millisecond)

// aRun is a run of n flows over ten seconds, of which the first broken end when an agent is killed at 4 s and late are
// late then.
func aRun(dataplane string, n, broken, late int) *result.Run {
	const start, step = int64(7e12), 250 * ms
	r := &result.Run{Name: "kill", Dataplane: dataplane, Start: start, End: start + 10_000*ms,
		Phases: []record.Phase{{Time: start + 1000*ms, Name: "without a fault", FaultFree: true}, {Time: start + 3000*ms, Name: "kill"}},
		Faults: []*result.Fault{
			{Spec: "kill agent/a after=0s..50ms seed=7", Name: "kill", Start: start + 4000*ms, End: start + 5200*ms, Active: 1},
			{Spec: "stop agent/b", Name: "stop", Start: start + 4500*ms, End: start + 7000*ms, Active: 9},
		},
		Report:   &record.Report{Budget: 10, WorstGap: 6.2, Probes: 1},
		Timeline: &result.Timeline{Start: start, Step: step},
	}
	for i := range n {
		d := record.FlowVerdict{Name: fmt.Sprintf("trickle %d, same node", i), Kind: "trickle", To: "10.96.0.40:80",
			Verdict: record.Intact, Gap: 6.2, Sent: 1000, Received: 1000}
		row := make([]int32, 41)
		for j := range row {
			row[j] = int32(300 + 450*((i*7+j*3)%14))
			if i == n-1 && j%4 != 0 {
				row[j] = -1 // sends once a second
			}
		}
		switch {
		case i < broken:
			d.Verdict, d.Reason, d.Why = record.Broken, record.Reset, "reset at frame 400 in phase kill"
			for j := 16; j < len(row); j++ {
				row[j] = -1
			}
			r.Report.Flows.Broken++
		case i < broken+late:
			d.Verdict, d.Gap, d.Why = record.Stalled, 35, "35.0 ms beyond the schedule, 10.0 ms are allowed"
			row[17] = 35000
			r.Timeline.Gaps = append(r.Timeline.Gaps, result.Gap{Flow: i, Due: start + 4300*ms, By: 35})
			r.Report.Flows.Stalled++
		default:
			r.Report.Flows.Intact++
		}
		r.Report.Details = append(r.Report.Details, d)
		r.Timeline.Worst = append(r.Timeline.Worst, row)
	}
	r.Timeline.Histogram = []uint64{0, 0, 0, 0, 12, 800, 4000, 9000, 3000, 700, 90, 30, 12, 3}
	if late > 0 {
		r.Timeline.Histogram = append(r.Timeline.Histogram, 0, uint64(late))
	}
	return r
}

// specOf wraps a result as Ginkgo does.
func specOf(name string, state types.SpecState, r *result.Result) types.SpecReport {
	s := types.SpecReport{LeafNodeType: types.NodeTypeIt, ContainerHierarchyTexts: []string{"Restart table", "kill"},
		LeafNodeText: name, State: state, RunTime: 3 * time.Second}
	if state.Is(types.SpecStateFailureStates) {
		s.Failure = types.Failure{Message: "Expected\n    <int>: 3\nto be zero", Location: types.CodeLocation{FileName: "/x/restart.go", LineNumber: 7}}
	}
	if r != nil {
		s.ReportEntries = types.ReportEntries{{Name: result.Entry, Value: types.WrapEntryValue(r)}}
	}
	return s
}

func aReport(t *testing.T, specs ...types.SpecReport) *Report {
	t.Helper()
	r, err := Of(types.Report{SuiteDescription: "Evenkeel chaos", StartTime: time.Unix(1e9, 0).UTC(), RunTime: 95 * time.Second,
		SuiteConfig: types.SuiteConfig{RandomSeed: 42}, SpecReports: specs})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestConclude(t *testing.T) {
	good := func(runs ...*result.Run) *result.Result { return &result.Result{Dataplane: "evenkeel", Runs: runs} }
	control := aRun("ambient", 5, 4, 1)
	control.Control = true
	void := aRun("", 3, 0, 0)
	void.Report.Void = true
	discarded := aRun("", 3, 3, 0)
	discarded.Discarded = true
	erred := specOf("a", types.SpecStateFailed, nil)
	erred.Failure.Message = "Unexpected error:\n    <*errors.joinError | 0xb57ef22e8e8>: \n    " + strings.Repeat("long ", 28) + "long long"
	for name, c := range map[string]struct {
		specs []types.SpecReport
		scope string
		want  Answer
		says  string
	}{
		"all well": {[]types.SpecReport{specOf("a", types.SpecStatePassed, good(aRun("", 3, 0, 0), discarded, control))}, "", Yes,
			"Yes, it may be rolled out: 1 expectation came true, 3 connections held (at worst 6.2 ms late) and 5 connections of the controls did not, as must be."},
		"a part": {[]types.SpecReport{specOf("a", types.SpecStatePassed, good(aRun("", 3, 0, 0)))}, "tier:smoke", Yes,
			"Yes, it may be rolled out as far as tier:smoke goes: 1 expectation"},
		"broken": {[]types.SpecReport{specOf("a", types.SpecStatePassed, nil), specOf("b", types.SpecStateFailed, good(aRun("", 9, 2, 1)))}, "", No,
			"No, it may not be rolled out: 1 of 2 expectations did not come true, 2 connections broke and 1 connection stalled. The first: Restart table kill b: Expected <int>: 3 to be zero."},
		"an error": {[]types.SpecReport{erred}, "", No, "kill a: Unexpected error: long long"},
		"cut":      {[]types.SpecReport{erred}, "", No, "long lo…"},
		"void":     {[]types.SpecReport{specOf("a", types.SpecStatePassed, good(void))}, "", Unknown, "the machine was too slow"},
		"controls only": {[]types.SpecReport{specOf("a", types.SpecStatePassed, &result.Result{Dataplane: "ambient",
			Runs: []*result.Run{control}})}, "dataplane:ambient", Unknown, "5 connections of the controls did not, as must be, but no spec ran it."},
		"nothing":     {[]types.SpecReport{specOf("a", types.SpecStateSkipped, nil)}, "", Unknown, "no spec ran"},
		"interrupted": {[]types.SpecReport{specOf("a", types.SpecStateInterrupted, nil)}, "", No, "1 of 1"},
	} {
		r := aReport(t, c.specs...)
		r.Conclude("it", c.scope)
		if r.Answer != c.want || !strings.Contains(r.Sentence, c.says) {
			t.Errorf("%s: %s, %s", name, r.Answer, r.Sentence)
		}
	}
}

// Whatever a filter left out is no spec of the run; one that was skipped for a reason is.
func TestSkipped(t *testing.T) {
	skipped := specOf("ztunnel", types.SpecStateSkipped, nil)
	skipped.Failure = types.Failure{Message: "--ztunnel is not given"}
	suite := types.SpecReport{LeafNodeType: types.NodeTypeBeforeSuite, State: types.SpecStatePassed}
	fell := types.SpecReport{LeafNodeType: types.NodeTypeAfterSuite, State: types.SpecStateFailed, Failure: types.Failure{Message: "leaks"}}
	r := aReport(t, specOf("filtered", types.SpecStateSkipped, nil), skipped, suite, fell)
	if r.Skipped != 1 || r.Failed != 1 || len(r.Specs) != 2 || r.Specs[1].Name != "AfterSuite" {
		t.Errorf("%+v", r)
	}
}

// TestJSON fails when a field is renamed or lost: others' scripts read them.
func TestJSON(t *testing.T) {
	r := aReport(t, specOf("a", types.SpecStateFailed, &result.Result{Dataplane: "evenkeel", Leaks: []string{"map 1"},
		Runs: []*result.Run{aRun("", 9, 2, 1)}}))
	r.Conclude("it", "")
	text, err := json.Marshal(r.WithoutPictures())
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(text, []byte("worst_us")) || r.Specs[0].Result.Runs[0].Timeline == nil {
		t.Error("the timeline is for the page only")
	}
	var read map[string]json.RawMessage
	if err := json.Unmarshal(text, &read); err != nil {
		t.Fatal(err)
	}
	for field, want := range map[string]string{
		"seed": "42", "dataplane": `"evenkeel"`, "passed": "0", "failed": "1", "skipped": "0", "answer": `"no"`,
		"flows": `{"intact":6,"stalled":1,"broken":2}`, "worst_gap_ms": "6.2", "budget_ms": "10", "void": "0",
		"wrong_verdicts": "0", "leaks": "1",
	} {
		if string(read[field]) != want {
			t.Errorf("%s: %s, not %s", field, read[field], want)
		}
	}
	if !bytes.HasPrefix(read["specs"], []byte(`[{"group":"Restart table","name":"kill a","state":"failed"`)) {
		t.Errorf("specs: %.200s", read["specs"])
	}
}

// samplePage writes a page with all that one can have, and returns its path.
func samplePage(t *testing.T) string {
	t.Helper()
	ambient := aRun("ambient", 12, 9, 0)
	ambient.Control = true
	broken, whole := aRun("ambient", 12, 12, 0), aRun("", 12, 0, 0)
	broken.Control = true
	for _, run := range []*result.Run{broken, whole} {
		run.Faults = []*result.Fault{{Spec: "term agent/a", Name: "term", Start: run.Start + 4000*ms, Active: 1}}
	}
	r := aReport(t,
		specOf("every kind of flow, same node", types.SpecStatePassed, &result.Result{Dataplane: "evenkeel", Seed: 42,
			Figures: []result.Figure{{Name: "start", Value: 231.5, Unit: "ms"}},
			Runs:    []*result.Run{aRun("", 12, 0, 0), ambient}}),
		specOf("some that <b>stall</b>", types.SpecStateFailed, &result.Result{Dataplane: "evenkeel", Seed: 42,
			Leaks: []string{"map 17 services"}, Runs: []*result.Run{aRun("", 30, 1, 3)},
			Repeat:   "evenkeel-chaos run --seed 42 --label fault:kill",
			Evidence: []result.Evidence{{Name: "agent log of a", Text: strings.Repeat("level=info msg=adopted took=21ms\n", 30)}}}),
		specOf("what must break", types.SpecStatePassed, &result.Result{Dataplane: "ambient", Runs: []*result.Run{broken}}),
		specOf("what must not", types.SpecStatePassed, &result.Result{Dataplane: "evenkeel", Runs: []*result.Run{whole}}),
		specOf("a thousand", types.SpecStatePassed, &result.Result{Dataplane: "evenkeel", Runs: []*result.Run{aRun("", 1000, 0, 0)}}),
	)
	r.Conclude("evenkeel 1.4.0 after 1.3.2", "tier:pr")
	r.About = []Fact{{"kernel", "6.18.5"}, {"processors", "2"}}
	file, err := os.Create(t.TempDir() + "/report.html")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := r.HTML(file); err != nil {
		t.Fatal(err)
	}
	return file.Name()
}
