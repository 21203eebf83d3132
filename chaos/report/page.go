// SPDX-License-Identifier: Apache-2.0

package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strings"

	"github.com/evenkeel/evenkeel/chaos/result"
	"github.com/evenkeel/evenkeel/netsim/flow/record"
)

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
	"ms":   func(v float64) string { return fmt.Sprintf("%.1f ms", v) },
	"gap":  gap,
	"took": took,
}).Parse(pageText))

// HTML writes the report as one page: no script, style, font or picture comes from elsewhere.
func (r *Report) HTML(w io.Writer) error {
	p := &page{Report: r}
	for _, s := range r.Specs {
		p.add(s)
	}
	p.arrange()
	slices.SortStableFunc(p.Specs, func(a, b *section) int { return rank(a.State) - rank(b.State) })
	if err := pageTemplate.Execute(w, p); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

func rank(state string) int { return slices.Index([]string{Failed, Passed, Skipped}, state) }

// page is what the template shows.
type page struct {
	*Report
	// Planes are the data planes, in the order in which they were met; Matrix has a column for each.
	Planes []*plane
	Matrix []*matrixRow
	Specs  []*section
	// Pairs are runs of different specs with the same faults on different data planes.
	Pairs []*pair
}

// pair is what the same faults did to connections of each data plane.
type pair struct {
	Group, What string
	Plots       []*plot
	specs       map[string]bool
}

// arrange puts data planes beside each other, this project's first.
func (p *page) arrange() {
	first := slices.IndexFunc(p.Planes, func(pl *plane) bool { return pl.Name == "evenkeel" })
	if first > 0 {
		p.Planes[0], p.Planes[first] = p.Planes[first], p.Planes[0]
		for _, row := range p.Matrix {
			row.Cells[0], row.Cells[first] = row.Cells[first], row.Cells[0]
		}
	}
	p.Pairs = slices.DeleteFunc(p.Pairs, func(two *pair) bool { return len(two.Plots) < 2 || len(two.specs) < 2 })
	for _, two := range p.Pairs {
		slices.SortStableFunc(two.Plots, func(a, b *plot) int { return p.column(a.Dataplane) - p.column(b.Dataplane) })
	}
}

// pair adds a drawing to those of the same faults, one for each data plane.
func (p *page) pair(s Spec, drawn *plot) {
	var faults []string
	for _, f := range drawn.Run.Faults {
		faults = append(faults, f.Spec)
	}
	what := strings.Join(faults, ", ")
	if what == "" {
		return
	}
	i := slices.IndexFunc(p.Pairs, func(two *pair) bool { return two.Group == s.Group && two.What == what })
	if i < 0 {
		i = len(p.Pairs)
		p.Pairs = append(p.Pairs, &pair{Group: s.Group, What: what, specs: map[string]bool{}})
	}
	two := p.Pairs[i]
	if !slices.ContainsFunc(two.Plots, func(other *plot) bool { return other.Dataplane == drawn.Dataplane }) {
		two.Plots, two.specs[s.Name] = append(two.Plots, drawn), true
	}
}

// plane sums up what ran on a data plane.
type plane struct {
	Name      string
	Histogram []uint64
	Bars      []bar
}

// matrixRow is what was done, and what became of flows on each data plane.
type matrixRow struct {
	What  string
	Cells []*cell
}

// cell counts flows and attempts; nil where nothing ran.
type cell struct {
	record.Counts
	Worst   float64
	Wrong   uint64
	Void    int
	Control bool
}

// Total is how many flows there are.
func (c *cell) Total() int { return c.Intact + c.Stalled + c.Broken }

// Share is a part of all in per cent.
func (c *cell) Share(n int) string {
	return fmt.Sprintf("%.2f%%", float64(n)*100/float64(max(c.Total(), 1)))
}

// section is a spec.
type section struct {
	Spec
	Open bool
	// Control tells that all of its runs are controls.
	Control bool
	Sum     cell
	Budget  float64
	Plots   []*plot
}

// count sums up runs: those of controls only if there are no others.
func (s *section) count(run *result.Run) {
	switch {
	case run.Control && s.Sum.Total() > 0 && !s.Control:
		return
	case !run.Control && s.Control:
		s.Sum, s.Budget, s.Control = cell{}, 0, false
	case run.Control:
		s.Control = true
	}
	s.Sum.add(run)
	s.Budget = max(s.Budget, run.Report.Budget)
}

func (p *page) add(s Spec) {
	sec := &section{Spec: s, Open: s.State == Failed}
	p.Specs = append(p.Specs, sec)
	if s.Result == nil {
		return
	}
	for _, run := range s.Result.Runs {
		if run.Discarded || run.Report == nil {
			continue
		}
		name := run.Dataplane
		if name == "" {
			name = s.Result.Dataplane
		}
		sec.count(run)
		if what := faultNames(run); what != "" {
			p.cell(what, name).add(run)
		}
		if run.Timeline != nil {
			p.plane(name).count(run.Timeline.Histogram, p.Budget)
		}
		if drawn := newPlot(s.Result.Dataplane, run); drawn != nil {
			sec.Plots = append(sec.Plots, drawn)
			p.pair(s, drawn)
		}
	}
}

func (c *cell) add(run *result.Run) {
	f := run.Report.Flows
	c.Intact, c.Stalled, c.Broken = c.Intact+f.Intact, c.Stalled+f.Stalled, c.Broken+f.Broken
	c.Wrong, c.Control = c.Wrong+run.Report.WrongVerdicts, c.Control || run.Control
	if run.Untimed {
		c.Intact, c.Stalled = c.Intact+f.Stalled, c.Stalled-f.Stalled
		return
	}
	c.Worst = max(c.Worst, run.Report.WorstGap)
	if run.Report.Void {
		c.Void++
	}
}

// faultNames are those of a run's faults, each once.
func faultNames(run *result.Run) string {
	var names []string
	for _, f := range run.Faults {
		if !slices.Contains(names, f.Name) {
			names = append(names, f.Name)
		}
	}
	return strings.Join(names, ", ")
}

func (p *page) plane(name string) *plane {
	return p.Planes[p.column(name)]
}

func (p *page) column(name string) int {
	i := slices.IndexFunc(p.Planes, func(pl *plane) bool { return pl.Name == name })
	if i >= 0 {
		return i
	}
	p.Planes = append(p.Planes, &plane{Name: name})
	for _, row := range p.Matrix {
		row.Cells = append(row.Cells, nil)
	}
	return len(p.Planes) - 1
}

func (p *page) cell(what, dataplane string) *cell {
	column := p.column(dataplane)
	i := slices.IndexFunc(p.Matrix, func(row *matrixRow) bool { return row.What == what })
	if i < 0 {
		i = len(p.Matrix)
		p.Matrix = append(p.Matrix, &matrixRow{What: what, Cells: make([]*cell, len(p.Planes))})
	}
	row := p.Matrix[i]
	if row.Cells[column] == nil {
		row.Cells[column] = &cell{}
	}
	return row.Cells[column]
}

func (p *plane) count(histogram []uint64, budget float64) {
	for i, n := range histogram {
		for len(p.Histogram) <= i {
			p.Histogram = append(p.Histogram, 0)
		}
		p.Histogram[i] += n
	}
	p.Bars = bars(p.Histogram, budget)
}

// gap is a lateness; below what recordings write down one by one it is known as little only.
func gap(ms float64) string {
	if ms == 0 {
		return fmt.Sprintf("below %d ms", record.Notable/1e6)
	}
	return fmt.Sprintf("%.1f ms", ms)
}

// took is a time for people.
func took(seconds float64) string {
	switch {
	case seconds < 0.0095:
		return ""
	case seconds < 10:
		return fmt.Sprintf("%.2f s", seconds)
	case seconds < 100:
		return fmt.Sprintf("%.0f s", seconds)
	}
	return fmt.Sprintf("%.0f min %02.0f s", float64(int(seconds)/60), float64(int(seconds)%60))
}
