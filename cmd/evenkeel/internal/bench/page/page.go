// SPDX-License-Identifier: Apache-2.0

// Package page shows what a run of the benchmark has found as one HTML file that needs nothing else: no script, no font,
// no network. Every figure in it is in the document, or computed from the blocks in it. The command bench calls it.
package page

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/bench"
	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/bench/sample"
)

//go:embed page.html
var text string

var layout = template.Must(template.New("page").Parse(text))

// Write writes the page of a document.
func Write(w io.Writer, d *bench.Document) error {
	if err := layout.Execute(w, newView(d)); err != nil {
		return fmt.Errorf("write page: %w", err)
	}
	return nil
}

// view is what the template shows.
type view struct {
	*bench.Document
	When                   string
	Yes, No, Undecided     int
	Sections               []section
	Absolutes              []absolute
	Figures                []figure
	Rounds                 []strip
	Mitigations, MachineOf string
}

// section is a group of rows.
type section struct {
	Title, Note string
	Rows        []row
}

type row struct {
	bench.Result
	What            string
	Value, Interval string
	Bound           string // to be reached
	Mark            template.HTML
}

// absolute is what the ratios of a trial are of.
type absolute struct {
	Trial, Metric string
	Cells         []cell
	Rounds, Void  int
}

type cell struct{ Arm, Value string }

// families are the groups of rows, by how their ids begin.
var families = []struct {
	title, note string
	prefixes    []string
}{
	{"Established connections", "per request of 64 bytes, ratio to no mesh; less is better", []string{"established-"}},
	{"New connections", "one request on each, ratio of the rates; more is better", []string{"connect-rate-", "nat-rate-"}},
	{"The kernel's side", "what connect() and our programs cost", []string{"connect-ns", "bpf-ns"}},
	{"Changes", "from what the source has decoded to what connect() sees", []string{"change-", "sync-", "restart"}},
	{"Memory and idleness", "of the agent and its maps", []string{"maps-", "pss-", "idle-"}},
	{"Generations", "one takes the place of another while traffic runs",
		[]string{"switch-", "grace-", "indirection-", "rollback-", "gap-", "mixed", "first-decision-"}},
	{"Migration", "a map whose layout changes, while two CPUs write it", []string{"migrate-", "imitation-"}},
}

func newView(d *bench.Document) *view {
	v := &view{Document: d, When: d.Started.Format("2 January 2006, 15:04 UTC")}
	what := map[string]string{}
	for _, r := range slices.Concat(bench.Cost.Rows(), bench.Upgrade.Rows()) {
		what[r.ID] = r.What
	}
	for _, f := range families {
		s := section{Title: f.title, Note: f.note}
		for _, r := range d.Rows {
			for _, prefix := range f.prefixes {
				if strings.HasPrefix(r.ID, prefix) {
					s.Rows = append(s.Rows, newRow(r, what[r.ID]))
					break
				}
			}
		}
		if len(s.Rows) > 0 {
			v.Sections = append(v.Sections, s)
		}
	}
	for _, r := range d.Rows {
		switch r.OK {
		case sample.Yes:
			v.Yes++
		case sample.No:
			v.No++
		case sample.Undecided:
			v.Undecided++
		}
	}
	v.Mitigations = strings.Join(d.Machine.Mitigations, "; ")
	v.MachineOf = machineOf(d.Machine)
	v.Figures = figures(d)
	v.Rounds = strips(d)
	v.Absolutes = absolutes(d)
	return v
}

func machineOf(m bench.Machine) string {
	kind := "bare metal"
	if m.Hypervisor {
		kind = "a virtual machine"
	}
	return fmt.Sprintf("%d CPUs of %s, %d GiB, %s, Linux %s, MTU %d, %s", m.CPUs, m.CPU, (m.MemoryMiB+512)/1024, kind,
		m.Kernel, m.MTU, m.Go)
}

func newRow(r bench.Result, what string) row {
	out := row{Result: r, What: what, Value: "–", Interval: "not measured",
		Bound: strings.NewReplacer("<=", "≤", ">=", "≥").Replace(r.ToReach)}
	if r.Value != nil {
		out.Value = bench.Figure(*r.Value, r.Unit)
		out.Interval = bench.Figure(*r.Low, r.Unit) + " … " + bench.Figure(*r.High, r.Unit)
		out.Mark = gauge(r)
	}
	return out
}

// units of metrics, and what they are divided by to be readable.
var units = map[string]struct {
	name  string
	scale float64
}{
	"rate": {"per second", 1}, "median": {"µs, median", 1e3}, "cpu": {"µs of CPU", 1e3}, "fresh": {"ns, connect()", 1},
	"again": {"ns, connect() again", 1}, "bpf": {"ns of BPF", 1}, "counted": {"ns of BPF, with counting", 1},
	"nothing": {"ns counted for nothing", 1}, "p50": {"ms, median", 1}, "p99": {"ms, 99th percentile", 1},
	"seconds": {"s", 1}, "maps": {"MiB, maps", 1}, "pss": {"MiB, PSS", 1}, "anonymous": {"MiB, anonymous part of PSS", 1},
	"peak": {"MiB, peak", 1}, "ready": {"s, start to ready", 1}, "idle": {"% of one core", 1},
	"wakeups": {"wake-ups per connection", 1}, "writes": {"map writes", 1},
}

func absolutes(d *bench.Document) []absolute {
	var all []absolute
	for _, s := range d.Trials {
		for _, metric := range sortedKeys(s.Values) {
			u, known := units[metric]
			if !known {
				u.name, u.scale = metric, 1
			}
			a := absolute{Trial: s.Trial, Metric: u.name, Void: s.Void}
			for _, arm := range s.Arms {
				values := s.Values[metric][arm]
				if len(values) == 0 {
					continue
				}
				a.Rounds = len(values)
				i := sample.Median(values, d.Seed)
				a.Cells = append(a.Cells, cell{arm, digits(i.Value / u.scale)})
			}
			all = append(all, a)
		}
	}
	return all
}

// digits shows three that mean something.
func digits(v float64) string {
	switch abs := math.Abs(v); {
	case abs >= 1000:
		return fmt.Sprintf("%.0f", v)
	case abs >= 100:
		return fmt.Sprintf("%.0f", v)
	case abs >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

// Took is how long the run was.
func (v *view) Took() string { return (time.Duration(v.Seconds) * time.Second).String() }
