// SPDX-License-Identifier: Apache-2.0

package report

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/evenkeel/evenkeel/chaos/result"
	"github.com/evenkeel/evenkeel/netsim/flow/record"
)

// The drawing is plotWidth wide in its own units, whatever it is on the screen, and a row as high as it says in pixels.
const (
	plotWidth = 1000
	tallRow   = 15 // with the name of the flow beside it
	smallRow  = 4
	manyRows  = 40  // from where rows are small
	mostHigh  = 480 // pixels: rows are pressed together from there
)

// plot is a run of flows as it is drawn: a row for each flow, from left to right what became of its frames.
type plot struct {
	Name, Dataplane string
	Run             *result.Run
	// Height and Row are in units of the drawing, Pixels is how high it is on the screen.
	Height, Row, Pixels int
	Small               bool
	Rows                []plotRow
	// Layers are rectangles of one meaning each, as the data of a path.
	Layers []layer
	Bands  []band
	Ticks  []tick
	Bars   []bar
	Bad    []record.FlowVerdict
	More   int // bad ones beyond those
}

type plotRow struct {
	record.FlowVerdict
	Y    int
	Mark string
	Hint string
}

type layer struct{ Class, Path string }

// band is a stretch of time. At and Width are in units of the drawing, Left in per cent.
type band struct {
	Class, Label, Hint string
	At, Width          float64
	Left               string
	// Level is the line of the label, Room what it has on that line, in per cent.
	Level int
	Room  string
}

type tick struct{ Left, Label string }

// newPlot returns nil for a run that has nothing to draw.
func newPlot(dataplane string, run *result.Run) *plot {
	if run.Report == nil || run.Timeline == nil || run.End <= run.Start {
		return nil
	}
	p := &plot{Name: run.Name, Dataplane: cmp.Or(run.Dataplane, dataplane), Run: run, Row: tallRow,
		Bars: bars(run.Timeline.Histogram, run.Report.Budget)}
	order := make([]int, len(run.Report.Details))
	for i := range order {
		order[i] = i
	}
	details := run.Report.Details
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Compare(severity(details[b].Verdict), severity(details[a].Verdict))
	})
	if len(order) > manyRows {
		p.Small, p.Row = true, smallRow
	}
	p.Height = max(p.Row*len(order), 1)
	p.Pixels = min(p.Height, max(mostHigh, manyRows*tallRow))
	paths := map[string]*strings.Builder{}
	for at, i := range order {
		d := details[i]
		p.Rows = append(p.Rows, plotRow{FlowVerdict: d, Y: at * p.Row, Mark: marks[d.Verdict], Hint: flowHint(d)})
		if d.Verdict != record.Intact {
			p.Bad = append(p.Bad, d)
		}
		if i < len(run.Timeline.Worst) {
			p.drawRow(paths, at, d, run.Timeline.Worst[i])
		}
		for _, g := range run.Timeline.Gaps {
			if g.Flow == i {
				rectangle(paths, "gap", p.x(g.Due), at*p.Row, max(p.x(g.Due+int64(g.By*1e6))-p.x(g.Due), 1.5), p.Row)
			}
		}
	}
	const most = 12
	if len(p.Bad) > most {
		p.Bad, p.More = p.Bad[:most], len(p.Bad)-most
	}
	for _, class := range []string{"silent", "calm", "soft", "near", "over", "gap", "lost"} {
		if path := paths[class]; path != nil {
			p.Layers = append(p.Layers, layer{class, path.String()})
		}
	}
	p.bands()
	p.ticks()
	return p
}

var marks = map[record.Verdict]string{record.Intact: "✓", record.Stalled: "▲", record.Broken: "✕"}

func severity(v record.Verdict) int {
	return slices.Index([]record.Verdict{record.Intact, record.Stalled, record.Broken}, v)
}

func flowHint(d record.FlowVerdict) string {
	text := fmt.Sprintf("%s\n%s to %s\n%s", d.Name, d.Kind, d.To, d.Verdict)
	if d.Must != "" {
		text += ", must " + d.Must
	}
	if d.Why != "" {
		text += ": " + d.Why
	}
	return text + fmt.Sprintf("\n%d sent, %d received, at most %.1f ms late", d.Sent, d.Received, d.Gap)
}

// x is a time in units of the drawing.
func (p *plot) x(at int64) float64 {
	at = min(max(at, p.Run.Start), p.Run.End)
	return float64(at-p.Run.Start) / float64(p.Run.End-p.Run.Start) * plotWidth
}

// drawRow adds the steps of one flow; neighbours of one class become one rectangle.
func (p *plot) drawRow(paths map[string]*strings.Builder, at int, d record.FlowVerdict, worst []int32) {
	classes := p.classes(d, worst)
	t := p.Run.Timeline
	for i := 0; i < len(classes); {
		j := i + 1
		for j < len(classes) && classes[j] == classes[i] {
			j++
		}
		if classes[i] != "" {
			from, to := p.x(t.Start+int64(i)*t.Step), p.x(t.Start+int64(j)*t.Step)
			gap := 1
			if p.Small {
				gap = 0
			}
			rectangle(paths, classes[i], from, at*p.Row, to-from, p.Row-gap)
		}
		i = j
	}
}

// classes says of each step of a flow how it is drawn; "" is nothing. A flow that is broken shows where nothing came.
func (p *plot) classes(d record.FlowVerdict, worst []int32) []string {
	first, last := -1, len(worst)
	for i, us := range worst {
		if us >= 0 {
			if first < 0 {
				first = i
			}
			last = i
		}
	}
	classes := make([]string, len(worst))
	end := int((p.Run.End - p.Run.Timeline.Start) / p.Run.Timeline.Step)
	for i, us := range worst {
		ms := float64(us) / 1000
		switch {
		case us < 0 && i >= end: // the last step is not whole
		case us < 0 && d.Verdict == record.Broken && i > first && (i > last || d.Must != ""):
			classes[i] = "lost"
		case us < 0 && first >= 0 && i > first && i < last:
			classes[i] = "silent"
		case us < 0:
		case ms > p.Run.Report.Budget && d.Gap > p.Run.Report.Budget: // else the machine was late, not the flow
			classes[i] = "over"
		case ms > p.Run.Report.Budget/2:
			classes[i] = "near"
		case ms > p.Run.Report.Budget/4:
			classes[i] = "soft"
		default:
			classes[i] = "calm"
		}
	}
	return classes
}

func rectangle(paths map[string]*strings.Builder, class string, x float64, y int, width float64, height int) {
	b := paths[class]
	if b == nil {
		b = &strings.Builder{}
		paths[class] = b
	}
	fmt.Fprintf(b, "M%.4g %dh%.4gv%dH%.4gz", x, y, max(width, 0.5), height, x)
}

// bands are the phases without a fault, and the faults, each on the lowest level where its label is not in another's way.
func (p *plot) bands() {
	for i, phase := range p.Run.Phases {
		end := p.Run.End
		if i+1 < len(p.Run.Phases) {
			end = p.Run.Phases[i+1].Time
		}
		if phase.FaultFree {
			p.band("free", "", phase.Name, phase.Time, end)
		}
	}
	const letter = 11  // units: about what a letter of a label takes
	var last []int     // label by level
	var ends []float64 // of that label
	for _, f := range p.Run.Faults {
		end := cmp.Or(f.End, p.Run.End)
		hint := fmt.Sprintf("%s\nfrom %.2f s to %.2f s, bit %d times", f.Spec, p.seconds(f.Start), p.seconds(end), f.Active)
		if f.Error != "" {
			hint += "\n" + f.Error
		}
		b := p.band("fault", label(f), hint, f.Start, end)
		for b.Level < len(ends) && ends[b.Level] > b.At {
			b.Level++
		}
		if b.Level == len(ends) {
			ends, last = append(ends, 0), append(last, -1)
		}
		if before := last[b.Level]; before >= 0 { // on a small screen a letter takes more
			p.Bands[before].Room = percent(b.At - p.Bands[before].At)
		}
		b.Room = percent(plotWidth - b.At)
		last[b.Level] = len(p.Bands) - 1
		ends[b.Level] = b.At + letter*float64(len(label(f)))
	}
}

// label is a fault without what would not fit anyhow.
func label(f *result.Fault) string {
	const most = 40
	if runes := []rune(f.Spec); len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return f.Spec
}

func (p *plot) band(class, label, hint string, from, to int64) *band {
	at := p.x(from)
	p.Bands = append(p.Bands, band{Class: class, Label: label, Hint: hint, At: at, Width: max(p.x(to)-at, 2), Left: percent(at)})
	return &p.Bands[len(p.Bands)-1]
}

// Levels is how many lines of labels are above the drawing.
func (p *plot) Levels() int {
	levels := 0
	for _, b := range p.Bands {
		if b.Label != "" {
			levels = max(levels, b.Level+1)
		}
	}
	return levels
}

func (p *plot) seconds(at int64) float64 { return float64(at-p.Run.Start) / 1e9 }

// ticks are about five, at round seconds.
func (p *plot) ticks() {
	whole := p.seconds(p.Run.End)
	step := math.Pow10(int(math.Floor(math.Log10(whole / 5))))
	for _, times := range []float64{1, 2, 5, 10} {
		if whole/(step*times) <= 6 {
			step *= times
			break
		}
	}
	for s := 0.0; s <= whole*0.97; s += step {
		p.Ticks = append(p.Ticks, tick{percent(s / whole * plotWidth), fmt.Sprintf("%.4g s", s)})
	}
}

func percent(x float64) string { return fmt.Sprintf("%.2f%%", x/plotWidth*100) }

// bar is one of a histogram of latenesses.
type bar struct {
	Count uint64
	// Height is in per cent, by the logarithm: one frame among millions has to be seen.
	Height string
	// Label is the upper end of what is counted; Over tells that it is beyond the budget.
	Label string
	Over  bool
	Named bool
}

func bars(histogram []uint64, budget float64) []bar {
	var most uint64
	for _, n := range histogram {
		most = max(most, n)
	}
	if most == 0 {
		return nil
	}
	var out []bar
	for i, n := range histogram {
		us := math.Pow(2, float64(i))
		b := bar{Count: n, Label: microseconds(us), Over: us/2000 >= budget, Named: i%4 == 0, Height: "0%"}
		if n > 0 {
			b.Height = fmt.Sprintf("%.1f%%", 4+96*math.Log1p(float64(n))/math.Log1p(float64(most)))
		}
		out = append(out, b)
	}
	for len(out) > 0 && out[len(out)-1].Count == 0 {
		out = out[:len(out)-1]
	}
	return out
}

func microseconds(us float64) string {
	switch {
	case us < 1000:
		return fmt.Sprintf("%.0f µs", us)
	case us < 1e6:
		return fmt.Sprintf("%.0f ms", us/1024)
	}
	return fmt.Sprintf("%.0f s", us/(1<<20))
}
