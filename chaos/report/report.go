// SPDX-License-Identifier: Apache-2.0

// Package report makes of a run of the suites what people and programs read: whether the release may be rolled out and
// why not, as a sentence, as JSON, and as one HTML page that needs nothing else.
package report

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/onsi/ginkgo/v2/types"

	"github.com/evenkeel/evenkeel/chaos/result"
)

// Version is that of the JSON form: fields are added without a new one, never renamed or given another meaning.
const Version = 1

// Answer says whether a release may be rolled out.
type Answer string

// The answers. Unknown: nothing failed, but the run has not shown what it should have.
const (
	Yes     Answer = "yes"
	No      Answer = "no"
	Unknown Answer = "unknown"
)

// The states of a spec. Every expectation of a passed one came true: that of a control is that flows break.
const (
	Passed  = "passed"
	Failed  = "failed"
	Skipped = "skipped"
)

// Report is what a run has shown.
type Report struct {
	Version int `json:"version"`
	// Answer is given by Conclude; Sentence says it to people, and why.
	Answer   Answer `json:"answer"`
	Sentence string `json:"sentence"`
	// Title is what the page is called.
	Title string    `json:"title"`
	Began time.Time `json:"began"`
	// Seconds is how long it took.
	Seconds float64 `json:"seconds"`
	// Seed decides what was drawn at random, Dataplane is what the labs ran.
	Seed      uint64 `json:"seed"`
	Dataplane string `json:"dataplane"`
	// Repeat is the command line that does the same again.
	Repeat string `json:"repeat,omitempty"`
	// About are circumstances: releases, kernel, processors.
	About []Fact `json:"about,omitempty"`
	// Passed, Failed and Skipped count specs.
	Passed  int `json:"passed"`
	Failed  int `json:"failed"`
	Skipped int `json:"skipped"`
	// Totals are over all runs of flows but those of controls, which Controls sums up.
	result.Totals
	Controls result.Totals `json:"controls"`
	Specs    []Spec        `json:"specs"`
}

// Fact is a circumstance of a run.
type Fact struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Spec is one expectation.
type Spec struct {
	// Group is the suite that it is of, Name the rest of its text.
	Group string `json:"group"`
	Name  string `json:"name"`
	// State is passed, failed or skipped.
	State   string   `json:"state"`
	Seconds float64  `json:"seconds"`
	Labels  []string `json:"labels,omitempty"`
	// Failure is why it failed or was skipped, Where the line of the source that says so.
	Failure string `json:"failure,omitempty"`
	Where   string `json:"where,omitempty"`
	// Result is nil for one that watched no flows.
	Result *result.Result `json:"result,omitempty"`
}

// Of takes from a Ginkgo report the specs that were chosen to run.
func Of(g types.Report) (*Report, error) {
	r := &Report{Version: Version, Title: g.SuiteDescription, Began: g.StartTime, Seconds: g.RunTime.Seconds(),
		Seed: uint64(g.SuiteConfig.RandomSeed)}
	for _, spec := range g.SpecReports {
		if !counts(spec) {
			continue
		}
		s, err := OfSpec(spec)
		if err != nil {
			return nil, err
		}
		r.Add(s)
	}
	for _, reason := range g.SpecialSuiteFailureReasons {
		r.Add(Spec{Group: g.SuiteDescription, Name: "the run as a whole", State: Failed, Failure: reason})
	}
	return r, nil
}

// counts tells whether a spec was to run. What a filter leaves out is reported as skipped without a reason; nodes of
// the suite itself count only if they failed.
func counts(spec types.SpecReport) bool {
	if spec.LeafNodeType != types.NodeTypeIt {
		return spec.Failed()
	}
	return spec.State != types.SpecStateSkipped || spec.Failure.Message != ""
}

// OfSpec takes one spec from its Ginkgo report.
func OfSpec(spec types.SpecReport) (Spec, error) {
	s := Spec{Name: spec.LeafNodeText, State: Failed, Seconds: spec.RunTime.Seconds(), Labels: spec.Labels()}
	texts := slices.DeleteFunc(slices.Clone(spec.ContainerHierarchyTexts), func(t string) bool { return t == "" })
	if len(texts) > 0 {
		s.Group = texts[0]
		for _, text := range slices.Backward(texts[1:]) {
			s.Name = text + " " + s.Name
		}
	}
	s.Name = cmp.Or(s.Name, spec.LeafNodeType.String())
	switch {
	case spec.State.Is(types.SpecStatePassed):
		s.State = Passed
	case spec.State.Is(types.SpecStateSkipped | types.SpecStatePending):
		s.State = Skipped
	}
	if !spec.Failure.IsZero() {
		s.Failure = spec.Failure.Message
		if spec.Failure.ForwardedPanic != "" {
			s.Failure += ": " + spec.Failure.ForwardedPanic
		}
		at := spec.Failure.Location
		s.Where = fmt.Sprintf("%s:%d", filepath.Base(at.FileName), at.LineNumber)
	}
	for _, more := range spec.AdditionalFailures {
		s.Failure += "\n\nthen: " + more.Failure.Message
	}
	var err error
	s.Result, err = result.Of(spec)
	return s, err
}

// Add adds a spec to the report.
func (r *Report) Add(s Spec) {
	r.Specs = append(r.Specs, s)
	switch s.State {
	case Passed:
		r.Passed++
	case Failed:
		r.Failed++
	default:
		r.Skipped++
	}
	if s.Result == nil {
		return
	}
	r.Dataplane = cmp.Or(r.Dataplane, s.Result.Dataplane)
	r.Totals.Add(s.Result)
	controls := result.Result{}
	for _, run := range s.Result.Runs {
		if run.Control && !run.Discarded {
			as := *run
			as.Control = false
			controls.Runs = append(controls.Runs, &as)
		}
	}
	r.Controls.Add(&controls)
}

// WithoutPictures returns a copy whose results have no timelines: what programs read.
func (r *Report) WithoutPictures() *Report {
	plain := *r
	plain.Specs = slices.Clone(r.Specs)
	for i, s := range plain.Specs {
		if s.Result == nil {
			continue
		}
		copied := *s.Result
		copied.Runs = nil
		for _, run := range s.Result.Runs {
			one := *run
			one.Timeline = nil
			copied.Runs = append(copied.Runs, &one)
		}
		plain.Specs[i].Result = &copied
	}
	if plain.Specs == nil {
		plain.Specs = []Spec{}
	}
	return &plain
}
