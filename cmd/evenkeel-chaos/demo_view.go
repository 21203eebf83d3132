// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"

	"github.com/evenkeel/evenkeel/netsim"
)

// demoView draws the demo on a terminal.
type demoView struct {
	*demo
	quit  func()
	width int
	// ended tells that a key was pressed that ends it.
	ended bool
}

type redraw struct{}

func tick() tea.Cmd { return tea.Tick(step, func(time.Time) tea.Msg { return redraw{} }) }

// Init begins to draw.
func (v *demoView) Init() tea.Cmd { return tick() }

// Update takes keys and the size of the terminal.
func (v *demoView) Update(message tea.Msg) (tea.Model, tea.Cmd) {
	switch m := message.(type) {
	case tea.WindowSizeMsg:
		v.width = m.Width
	case tea.KeyPressMsg:
		if key := m.String(); key == "q" || key == "esc" || key == "ctrl+c" {
			v.ended = true
			v.quit()
			return v, tea.Quit
		}
	case redraw:
		return v, tick()
	}
	return v, nil
}

// View is the picture as it is now.
func (v *demoView) View() tea.View {
	v.mu.Lock()
	defer v.mu.Unlock()
	return tea.NewView(v.picture(v.width))
}

var (
	titleStyle = lipgloss.NewStyle().Bold(true)
	faintStyle = lipgloss.NewStyle().Faint(true)
	goodStyle  = lipgloss.NewStyle().Foreground(lipgloss.Color("2"))
	badStyle   = lipgloss.NewStyle().Foreground(lipgloss.Color("1"))
)

const (
	nameWidth   = 19
	countsWidth = 18
	leastBar    = 8
	leastSide   = nameWidth + leastBar + countsWidth
	gutter      = 3
	eventsShown = 5
)

// picture is both sides, beside each other where that fits, and the last events. No line is wider than width.
func (d *demo) picture(width int) string {
	each, beside := (width-gutter)/2, true
	if each < leastSide {
		each, beside = width, false
	}
	var sides []string
	for _, s := range d.sides {
		sides = append(sides, s.picture(each))
	}
	var b strings.Builder
	b.WriteString(titleStyle.Render(cut("Evenkeel demo", width)) + "\n\n")
	if beside {
		b.WriteString(lipgloss.JoinHorizontal(lipgloss.Top, sides[0], strings.Repeat(" ", gutter), sides[1]))
	} else {
		b.WriteString(strings.Join(sides, "\n\n"))
	}
	b.WriteString("\n\n")
	events := d.events[max(0, len(d.events)-eventsShown):]
	for i := range eventsShown {
		line := ""
		if i < len(events) {
			line = cut(fmt.Sprintf("%6.1f s  %s", events[i].at.Seconds(), events[i].text), width)
		}
		if i == len(events)-1 {
			line = titleStyle.Render(line)
		}
		b.WriteString(line + "\n")
	}
	b.WriteString(faintStyle.Render(cut("q ends it", width)))
	return b.String()
}

var sideTitles = map[netsim.Dataplane]string{
	netsim.Evenkeel: "evenkeel: connections are in the kernel",
	netsim.Ambient:  "ambient: connections are in a process",
}

// picture is one side: a line for each connection, exactly width wide.
func (s *side) picture(width int) string {
	lines := []string{titleStyle.Render(pad(sideTitles[s.plane], width))}
	bar := max(width-nameWidth-countsWidth, 0)
	for _, r := range s.rows {
		counts := fmt.Sprintf(" %7d", r.received)
		lost := fmt.Sprintf(" %3d lost", r.lost)
		if r.attempts {
			lost = fmt.Sprintf(" %3d fail", r.lost)
		}
		style := faintStyle
		if r.lost > 0 {
			style = badStyle
		}
		if width < leastSide { // no bar fits
			lines = append(lines, pad(r.Name+counts+lost, width))
			continue
		}
		lines = append(lines, pad(r.Name, nameWidth)+r.bar(bar)+counts+style.Render(pad(lost, countsWidth-len(counts))))
	}
	total := fmt.Sprintf("%d connections lost", s.lost())
	if s.lost() == 0 {
		lines = append(lines, goodStyle.Render(pad(total, width)))
	} else {
		lines = append(lines, badStyle.Render(pad(total, width)))
	}
	return strings.Join(lines, "\n")
}

// bar is all that happened: where there are more marks than columns, each shows the worst of some.
func (r *row) bar(width int) string {
	each := max(1, (len(r.marks)+width-1)/width)
	var marks []mark
	for some := range slices.Chunk(r.marks, each) {
		marks = append(marks, slices.Max(some))
	}
	var b strings.Builder
	for i := 0; i < len(marks); {
		j := i
		for j < len(marks) && marks[j] == marks[i] {
			j++
		}
		switch marks[i] {
		case markGood:
			b.WriteString(goodStyle.Render(strings.Repeat("▪", j-i)))
		case markBad:
			b.WriteString(badStyle.Render(strings.Repeat("x", j-i)))
		default:
			b.WriteString(strings.Repeat("·", j-i))
		}
		i = j
	}
	b.WriteString(strings.Repeat(" ", width-len(marks)))
	return b.String()
}

// table is the counts of both sides, for the end and for those without a terminal.
func (d *demo) table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "  %-20s", "")
	for _, s := range d.sides {
		fmt.Fprintf(&b, "%10s answered   lost", s.plane)
	}
	b.WriteString("\n")
	for i, r := range d.sides[0].rows {
		fmt.Fprintf(&b, "  %-20s", r.Name)
		for _, s := range d.sides {
			fmt.Fprintf(&b, "%19d %6d", s.rows[i].received, s.rows[i].lost)
		}
		b.WriteString("\n")
	}
	return b.String()
}

// cut keeps what fits.
func cut(text string, width int) string {
	runes := []rune(text)
	if len(runes) <= width {
		return text
	}
	if width < 1 {
		return ""
	}
	return string(runes[:width-1]) + "…"
}

// pad makes a text as wide as it says.
func pad(text string, width int) string {
	text = cut(text, width)
	return text + strings.Repeat(" ", max(0, width-len([]rune(text))))
}
