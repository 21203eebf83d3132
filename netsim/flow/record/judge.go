// SPDX-License-Identifier: Apache-2.0

package record

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// Verdict is what became of a flow, and of a run.
type Verdict string

// The verdicts of a flow. A probe is intact when every attempt ended as it must, else broken.
const (
	Intact  Verdict = "intact"
	Stalled Verdict = "stalled" // it goes on, but was later than the budget
	Broken  Verdict = "broken"
)

// The verdicts of a run. Void: it shows nothing, because the machine or the client was too late by itself. What is
// broken stays broken on a slow machine, so it is failed then.
const (
	Passed Verdict = "passed"
	Fell   Verdict = "failed"
	Void   Verdict = "void"
)

// budgetFloor is the smallest budget; budgetFactor is what the worst lateness without a fault is multiplied with.
const (
	budgetFloor  = 10 * time.Millisecond
	budgetFactor = 3
)

// Report is what Judge concludes. Durations are milliseconds.
type Report struct {
	Version int     `json:"version"`
	Verdict Verdict `json:"verdict"`
	// VoidReasons says why nothing can be concluded about gaps; Void is set if there is one.
	Void        bool     `json:"void"`
	VoidReasons []string `json:"void_reasons,omitempty"`
	// Budget is max(3 x Baseline, 10 ms); Baseline is the worst lateness of the phases without a fault, over all flows.
	Budget   float64 `json:"budget_ms"`
	Limit    float64 `json:"limit_ms"`
	Baseline float64 `json:"baseline_ms"`
	// WorstGap is the worst lateness outside of these phases.
	WorstGap float64 `json:"worst_gap_ms"`
	// Blind is the longest stretch outside of these phases in which client or server did not run: a gap of that length
	// may have gone unseen. Beyond Limit the run is void.
	Blind float64 `json:"blind_ms"`
	// Flows counts flows, not probes.
	Flows Counts `json:"flows"`
	// WrongVerdicts counts attempts of probes that ended as they must not.
	WrongVerdicts uint64        `json:"wrong_verdicts"`
	Probes        int           `json:"probes"`
	Details       []FlowVerdict `json:"details"`
}

// Counts are flows by verdict.
type Counts struct {
	Intact  int `json:"intact"`
	Stalled int `json:"stalled"`
	Broken  int `json:"broken"`
}

// FlowVerdict is what became of one flow or probe.
type FlowVerdict struct {
	Name    string  `json:"name"`
	Kind    string  `json:"kind"`
	To      string  `json:"to"`
	Must    string  `json:"must,omitempty"`
	Verdict Verdict `json:"verdict"`
	// Why is empty for an intact one.
	Why    string `json:"why,omitempty"`
	Reason Reason `json:"reason,omitempty"`
	// Gap is the worst lateness outside of the phases without a fault, without what was due to the instrument's own
	// processes; Phase is the phase in which that frame was due.
	Gap      float64 `json:"gap_ms"`
	Phase    string  `json:"phase,omitempty"`
	Sent     uint64  `json:"sent"`
	Received uint64  `json:"received"`
	// Wrong counts attempts that ended as they must not, Unproved those that asked nobody.
	Wrong    uint64 `json:"wrong,omitempty"`
	Unproved uint64 `json:"unproved,omitempty"`
}

// flowLines is what a recording says of one flow.
type flowLines struct {
	Flow
	late   []Late
	blind  []Blind
	breaks []Break
	done   *Done
	frames uint64 // received, by windows that are over
}

// run is what all recordings say.
type run struct {
	boot    string
	phases  []Phase
	order   []uint64
	flows   map[uint64]*flowLines
	windows []Window
	stalls  []Stall
	// standstills are those of all processors.
	standstills []Standstill
	// stalled is when some process of the instrument did not run, halted when that or a processor did not.
	stalled, halted union
}

// JudgeFiles judges the recordings of one run, in any order.
func JudgeFiles(paths ...string) (*Report, error) {
	r := &run{flows: map[uint64]*flowLines{}}
	for _, path := range paths {
		if err := ReadFile(path, r.add); err != nil {
			return nil, err
		}
	}
	return r.judge()
}

// Judge is JudgeFiles of one recording. name is for messages.
func Judge(in io.Reader, name string) (*Report, error) {
	r := &run{flows: map[uint64]*flowLines{}}
	if err := Read(in, name, r.add); err != nil {
		return nil, err
	}
	return r.judge()
}

func (r *run) add(line any) error {
	switch line := line.(type) {
	case *Start:
		if r.boot == "" {
			r.boot = line.Boot
		}
		if line.Boot != r.boot {
			return errors.New("it is of another boot than the files before it: their clocks have nothing in common")
		}
	case *Phase:
		r.phases = append(r.phases, *line)
	case *Flow:
		if r.flows[line.ID] != nil {
			return fmt.Errorf("flow %d is declared twice: is a file given twice?", line.ID)
		}
		r.flows[line.ID] = &flowLines{Flow: *line}
		r.order = append(r.order, line.ID)
	case *Window:
		r.windows = append(r.windows, *line)
		return r.of(line.Flow, func(f *flowLines) { f.frames += line.Received })
	case *Stall:
		r.stalls = append(r.stalls, *line)
	case *Standstill:
		r.standstills = append(r.standstills, *line)
	case *Late:
		return r.of(line.Flow, func(f *flowLines) { f.late = append(f.late, *line) })
	case *Blind:
		return r.of(line.Flow, func(f *flowLines) { f.blind = append(f.blind, *line) })
	case *Break:
		return r.of(line.Flow, func(f *flowLines) { f.breaks = append(f.breaks, *line) })
	case *Done:
		return r.of(line.Flow, func(f *flowLines) { f.done = line })
	}
	return nil
}

func (r *run) of(id uint64, add func(*flowLines)) error {
	f := r.flows[id]
	if f == nil {
		return fmt.Errorf("flow %d was not declared", id)
	}
	add(f)
	return nil
}

func (r *run) judge() (*Report, error) {
	if len(r.order) == 0 {
		return nil, errors.New("the recording has no flow: nothing can be judged")
	}
	slices.SortStableFunc(r.phases, func(a, b Phase) int { return cmp.Compare(a.Time, b.Time) })
	var stalls, halts []interval
	for _, s := range r.stalls {
		stalls = append(stalls, interval{s.From, s.To})
	}
	for _, s := range r.standstills {
		halts = append(halts, interval{s.From, s.To})
	}
	r.stalled, r.halted = unite(stalls), unite(append(halts, stalls...))
	report := &Report{Version: Version}
	baseline := r.baseline()
	budget := max(budgetFactor*baseline, int64(budgetFloor))
	limit := r.limit()
	report.Baseline, report.Budget, report.Limit = milliseconds(baseline), milliseconds(budget), milliseconds(limit)
	if !r.hasBaseline() {
		report.void("no flow was watched in a phase without a fault, so there is no budget")
	}
	if budget > limit {
		report.void("the machine is too slow: %.1f ms late without a fault make a budget of %.1f ms, more than %.0f ms",
			report.Baseline, report.Budget, report.Limit)
	}
	var blind, worst int64
	for _, id := range r.order {
		f := r.flows[id]
		for _, b := range f.blind {
			if r.judged(b.Due, b.Due+b.By) {
				blind = max(blind, b.By)
			}
		}
		verdict, gap := r.verdict(f, budget)
		worst = max(worst, gap)
		report.add(verdict)
	}
	stall := r.longestStall()
	if stall.To-stall.From > limit {
		report.void("the machine kept the %s from running for %.1f ms: what happened meanwhile was not seen", stall.Role,
			milliseconds(stall.To-stall.From))
	} else if blind > limit {
		report.void("client or server were %.1f ms late to send: what happened meanwhile was not seen", milliseconds(blind))
	}
	if what := r.unexplained(budget, limit); what != "" {
		report.void("%s", what)
	}
	report.Blind = milliseconds(max(blind, stall.To-stall.From))
	report.WorstGap = milliseconds(worst)
	switch {
	case report.Flows.Broken > 0 || report.WrongVerdicts > 0:
		report.Verdict = Fell
	case report.Void:
		report.Verdict = Void
	case report.Flows.Stalled > 0 || slices.ContainsFunc(report.Details, FlowVerdict.bad):
		report.Verdict = Fell
	default:
		report.Verdict = Passed
	}
	return report, nil
}

func (v FlowVerdict) bad() bool { return v.Verdict != Intact }

func (r *Report) void(format string, args ...any) {
	r.Void = true
	r.VoidReasons = append(r.VoidReasons, fmt.Sprintf(format, args...))
}

func (r *Report) add(v FlowVerdict) {
	r.Details = append(r.Details, v)
	r.WrongVerdicts += v.Wrong
	if v.Unproved > 0 {
		r.void("probe %s shows nothing %d times: %s", v.Name, v.Unproved, v.Why)
	}
	switch {
	case v.Must != "":
		r.Probes++
	case v.Verdict == Intact:
		r.Flows.Intact++
	case v.Verdict == Stalled:
		r.Flows.Stalled++
	default:
		r.Flows.Broken++
	}
}

// verdict judges one flow, and returns its worst lateness.
func (r *run) verdict(f *flowLines, budget int64) (FlowVerdict, int64) {
	v := FlowVerdict{Name: f.Name, Kind: f.Kind, To: f.To, Must: f.Must, Verdict: Intact, Received: f.frames}
	var gap int64
	for _, late := range f.late {
		if !r.judged(late.Due, late.Received) {
			continue
		}
		if lateness := late.Lateness - r.stalled.within(late.Due, late.Received); lateness > gap {
			gap, v.Phase = lateness, r.phaseAt(late.Due).Name
		}
	}
	v.Gap = milliseconds(gap)
	if gap > budget {
		v.Verdict, v.Why = Stalled, fmt.Sprintf("%.1f ms beyond the schedule, %.1f ms are allowed", v.Gap, milliseconds(budget))
	}
	broken := func(reason Reason, format string, args ...any) {
		v.Verdict, v.Reason, v.Why = Broken, reason, fmt.Sprintf(format, args...)
	}
	if f.done != nil {
		v.Sent, v.Received = f.done.Sent, f.done.Received
	}
	switch {
	case len(f.breaks) > 0:
		first := f.breaks[0]
		broken(first.Reason, "%s at frame %d", first.Reason, first.Sequence)
		if phase := r.phaseAt(first.Time).Name; phase != "" {
			v.Why += " in phase " + phase
		}
		if first.Detail != "" {
			v.Why += ": " + first.Detail
		}
	case f.done == nil:
		broken(Unanswered, "the recording ends before the flow does")
	case f.done.Breaks > 0:
		broken(Failed, "%d breaks without a line", f.done.Breaks)
	case !f.Silent && f.scheduled() > f.done.Sent:
		broken(Failed, "%d frames were sent, the schedule had %d", f.done.Sent, f.scheduled())
	}
	if f.Must != "" && f.done != nil {
		v.Wrong = f.done.Breaks - f.done.Unproved
		v.Unproved = f.done.Unproved
	}
	return v, gap
}

// unexplained says why it cannot be told whether frames were late on their way, empty if it can be told of all flows.
// There are two cases. A flow is beyond the budget, but might not be if some processor had not stood still meanwhile. Or
// it is within the budget only because a process of the instrument did not run, and was so late that a gap beyond the
// limit may hide behind that.
func (r *run) unexplained(budget, limit int64) string {
	flows, worst, why := 0, int64(0), ""
	for _, id := range r.order {
		// The worst of this flow: as it was, without what processes were late, and without what processors were, too.
		var raw, net, sure Late
		for _, late := range r.flows[id].late {
			if late.Lateness <= budget || !r.judged(late.Due, late.Received) {
				continue
			}
			raw = later(raw, late, 0)
			net = later(net, late, r.stalled.within(late.Due, late.Received))
			sure = later(sure, late, r.halted.within(late.Due, late.Received))
		}
		reason := ""
		switch {
		case net.Lateness > budget && sure.Lateness <= budget:
			reason = fmt.Sprintf("processors stood still for %.1f ms of that",
				milliseconds(r.halted.within(raw.Due, raw.Received)))
		case net.Lateness <= budget && raw.Lateness > limit:
			reason = fmt.Sprintf("processes of the instrument did not run for %.1f ms of that",
				milliseconds(r.stalled.within(raw.Due, raw.Received)))
		default:
			continue
		}
		flows++
		if raw.Lateness > worst {
			worst, why = raw.Lateness, reason
		}
	}
	if flows == 0 {
		return ""
	}
	return fmt.Sprintf("whose fault it was cannot be told that %d flows were late, by up to %.1f ms: %s", flows,
		milliseconds(worst), why)
}

// later returns the later of two frames, when excused is taken from the second.
func later(a, b Late, excused int64) Late {
	if b.Lateness -= excused; b.Lateness > a.Lateness {
		return b
	}
	return a
}

// longestStall returns the longest in what is judged.
func (r *run) longestStall() Stall {
	var longest Stall
	for _, s := range r.stalls {
		if s.To-s.From > longest.To-longest.From && r.judged(s.From, s.To) {
			longest = s
		}
	}
	return longest
}

// scheduled returns how many frames were due, but for one at either end.
func (f *flowLines) scheduled() uint64 {
	if f.Period <= 0 || f.done.Stop <= f.First {
		return 0
	}
	n := (f.done.Stop-f.First)/f.Period - 1
	return uint64(max(n, 0))
}

func milliseconds(ns int64) float64 { return float64(ns/1000) / 1000 }
