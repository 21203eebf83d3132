// SPDX-License-Identifier: Apache-2.0

package page

import (
	"fmt"
	"html/template"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/bench"
	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/bench/sample"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// svg collects the elements of a drawing. Colours are classes of the page's style sheet, so that both themes fit.
type svg struct {
	width, height float64
	label         string
	body          strings.Builder
}

func (s *svg) add(format string, args ...any) { fmt.Fprintf(&s.body, format, args...) }

func (s *svg) line(class string, x1, y1, x2, y2 float64) {
	s.add(`<line class="%s" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`, class, x1, y1, x2, y2)
}

func (s *svg) text(class string, x, y float64, text string) {
	s.add(`<text class="%s" x="%.1f" y="%.1f">%s</text>`, class, x, y, template.HTMLEscapeString(text))
}

// dot is a mark with what it says for whoever points at it.
func (s *svg) dot(class string, x, y, r float64, title string) {
	s.add(`<circle class="%s" cx="%.1f" cy="%.1f" r="%.1f"><title>%s</title></circle>`, class, x, y, r,
		template.HTMLEscapeString(title))
}

func (s *svg) html() template.HTML {
	return template.HTML(fmt.Sprintf(`<svg viewBox="0 0 %.0f %.0f" role="img" aria-label="%s">%s</svg>`, //nolint:gosec // escaped above
		s.width, s.height, template.HTMLEscapeString(s.label), s.body.String()))
}

// scale maps values to a range of coordinates, and keeps what lies outside at its ends.
type scale struct{ from, to, begin, end float64 }

func (s scale) at(v float64) float64 {
	x := s.begin + (v-s.from)/(s.to-s.from)*(s.end-s.begin)
	return max(min(s.begin, s.end), min(max(s.begin, s.end), x))
}

// ticks are round values within the scale, about so many.
func (s scale) ticks(n int) []float64 {
	step := math.Pow(10, math.Floor(math.Log10((s.to-s.from)/float64(n))))
	for _, m := range []float64{1, 2, 5, 10} {
		if (s.to-s.from)/(step*m) <= float64(n) {
			step *= m
			break
		}
	}
	var at []float64
	for v := math.Ceil(s.from/step-1e-9) * step; v <= s.to+step*1e-9; v += step {
		at = append(at, math.Round(v/step)*step)
	}
	return at
}

// gauge shows an interval beside what is to be reached: the bound is in the middle, the good side on the left of it for
// what should be small and on the right for what should be large.
func gauge(r bench.Result) template.HTML {
	var relation string
	var bound float64
	if _, err := fmt.Sscanf(r.ToReach, "%s %g", &relation, &bound); err != nil {
		return ""
	}
	const width, height = 220.0, 22.0
	half := max(math.Abs(*r.Low-bound), math.Abs(*r.High-bound), math.Abs(bound)*0.02) * 1.15
	x := scale{bound - half, bound + half, 6, width - 6}
	s := svg{width: width, height: height, label: fmt.Sprintf("%g to %g, to reach %s", *r.Low, *r.High, r.ToReach)}
	good := x.at(bound)
	if relation == string(sample.AtMost) {
		s.add(`<rect class="good" x="0" y="2" width="%.1f" height="18"/>`, good)
	} else {
		s.add(`<rect class="good" x="%.1f" y="2" width="%.1f" height="18"/>`, good, width-good)
	}
	s.line("bound", good, 0, good, height)
	s.line("range "+string(r.OK), x.at(*r.Low), 11, x.at(*r.High), 11)
	s.dot("dot "+string(r.OK), x.at(*r.Value), 11, 4.5, fmt.Sprintf("%s: %s", r.ID, bench.Figure(*r.Value, r.Unit)))
	return s.html()
}

// figure is a plot of ratios to no mesh.
type figure struct {
	Title, Note string
	Arms        []legend
	Plot        template.HTML
}

// legend is an arm and its class, which is the same in all figures.
type legend struct{ Class, Name string }

var classes = map[string]string{bench.Again: "arm0", bench.NAT: "arm1", bench.Mesh: "arm2", bench.Checked: "arm3"}

// group is a line of marks in a figure.
type group struct {
	label string
	marks []mark
}

type mark struct {
	arm string
	sample.Interval
}

// figures are one for each kind of trial and condition in which there are ratios.
func figures(d *bench.Document) []figure {
	order, groups := []string{}, map[string][]group{}
	for _, s := range d.Trials {
		for _, metric := range sortedKeys(s.Values) {
			key, label := place(s.Trial, metric)
			if key == "" {
				continue
			}
			g := group{label: label}
			base := s.Values[metric][bench.Plain]
			for _, arm := range s.Arms {
				if values := s.Values[metric][arm]; arm != bench.Plain && len(values) > 0 && len(base) == len(values) {
					g.marks = append(g.marks, mark{arm, sample.Median(sample.Ratios(values, base), d.Seed)})
				}
			}
			if len(g.marks) == 0 {
				continue
			}
			if groups[key] == nil {
				order = append(order, key)
			}
			groups[key] = append(groups[key], g)
		}
	}
	var all []figure
	for _, key := range order {
		title, note, _ := strings.Cut(key, "|")
		arms, plot := forest(title, groups[key])
		all = append(all, figure{Title: title, Note: note, Arms: arms, Plot: plot})
	}
	return all
}

// place says in which figure a metric of a trial belongs, "title|note", and what its line is called.
func place(trial, metric string) (key, label string) {
	conditions := func(rest string) string {
		about := "one core, reno"
		rest = strings.ReplaceAll(rest, "two-cores", "two cores")
		rest = strings.TrimPrefix(rest, "-")
		if rest != "" {
			about = strings.ReplaceAll(rest, "-", ", ")
		}
		return about
	}
	switch {
	case strings.HasPrefix(trial, "established") && (metric == "median" || metric == "cpu"):
		name := map[string]string{"median": "median latency", "cpu": "CPU time"}[metric]
		return "Requests on an established connection (" + conditions(strings.TrimPrefix(trial, "established")) +
			")|ratio to no mesh; left of 1 is faster", name
	case strings.HasPrefix(trial, "connect-rate-c") && metric == "rate":
		level, rest, _ := strings.Cut(strings.TrimPrefix(trial, "connect-rate-c"), "-")
		return "New connections (" + conditions(rest) + ")|ratio of the rates to no mesh; right of 1 is faster",
			level + " at a time"
	}
	return "", ""
}

// forest draws intervals side by side, a line for each group and arm.
func forest(label string, groups []group) (arms []legend, _ template.HTML) {
	low, high := 0.98, 1.02
	rows := 0
	for _, g := range groups {
		for _, m := range g.marks {
			if l := (legend{classes[m.arm], m.arm}); !slices.Contains(arms, l) {
				arms = append(arms, l)
			}
			low, high = min(low, m.Low), max(high, m.High)
			rows++
		}
	}
	const width, left, right, step, top = 720.0, 130.0, 60.0, 17.0, 8.0
	height := top + float64(rows)*step + float64(len(groups))*10 + 26
	margin := (high - low) * 0.06
	x := scale{low - margin, high + margin, left, width - right}
	s := svg{width: width, height: height, label: label}
	bottom := height - 24
	s.add(`<rect class="band" x="%.1f" y="%.1f" width="%.1f" height="%.1f"><title>1 ± 2 %%</title></rect>`, x.at(0.98), top,
		x.at(1.02)-x.at(0.98), bottom-top)
	for _, t := range x.ticks(7) {
		s.line("grid", x.at(t), top, x.at(t), bottom)
		s.text("tick", x.at(t), bottom+16, fmt.Sprintf("%.4g", t))
	}
	s.line("one", x.at(1), top, x.at(1), bottom)
	y := top + 4
	for _, g := range groups {
		s.text("name", left-12, y+float64(len(g.marks))*step/2+4, g.label)
		for _, m := range g.marks {
			class := classes[m.arm]
			at := y + step/2
			s.line("range "+class, x.at(m.Low), at, x.at(m.High), at)
			s.dot("dot "+class, x.at(m.Value), at, 4.5, fmt.Sprintf("%s, %s: %.3f, %.3f to %.3f", m.arm, g.label, m.Value, m.Low,
				m.High))
			s.text("value", width-right+8, at+4, fmt.Sprintf("%.3f", m.Value))
			y += step
		}
		y += 10
		if g.label != groups[len(groups)-1].label {
			s.line("grid", 0, y-5, width, y-5)
		}
	}
	return arms, s.html()
}

// strip shows the rounds of a trial one by one.
type strip struct {
	Trial, Metric string
	Rounds, Void  int
	Plot          template.HTML
}

func strips(d *bench.Document) []strip {
	var all []strip
	for _, t := range d.Trials {
		for _, metric := range sortedKeys(t.Values) {
			if key, _ := place(t.Trial, metric); key == "" {
				continue
			}
			base := t.Values[metric][bench.Plain]
			var lines [][]float64
			for _, arm := range []string{bench.Again, bench.Mesh} {
				if values := t.Values[metric][arm]; len(values) == len(base) && len(base) > 1 {
					lines = append(lines, sample.Ratios(values, base))
				}
			}
			if len(lines) == 2 {
				u := units[metric].name
				all = append(all, strip{t.Trial, u, len(base), t.Void, rounds(t.Trial, lines)})
			}
		}
	}
	return all
}

// rounds draws the ratios of no mesh again, and of the mesh, round by round.
func rounds(label string, lines [][]float64) template.HTML {
	const width, height, left = 230.0, 84.0, 30.0
	low, high := 0.97, 1.03
	for _, line := range lines {
		low, high = min(low, slices.Min(line)), max(high, slices.Max(line))
	}
	low, high = max(low, 0.5), min(high, 1.5) // what lies beyond is drawn at the edge
	y := scale{low, high, height - 6, 6}
	x := scale{0, float64(len(lines[0]) - 1), left + 4, width - 4}
	s := svg{width: width, height: height, label: label + ", round by round"}
	s.add(`<rect class="band" x="%.1f" y="%.1f" width="%.1f" height="%.1f"/>`, left, y.at(1.02), width-left,
		y.at(0.98)-y.at(1.02))
	s.line("one", left, y.at(1), width, y.at(1))
	for _, v := range []float64{low, 1, high} {
		s.text("value end", left-4, y.at(v)+3.5, fmt.Sprintf("%.2f", v))
	}
	for i, line := range lines {
		for round, v := range line {
			class := []string{"again", "mesh"}[i]
			s.dot("round "+class, x.at(float64(round)), y.at(v), 2.2, fmt.Sprintf("round %d: %.3f", round+1, v))
		}
	}
	return s.html()
}
