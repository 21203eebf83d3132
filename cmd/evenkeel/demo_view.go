// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// demoFlow is one client as the demo shows it. Its history has one mark for each report: whether requests were
// answered since the last one.
type demoFlow struct {
	Name, Route string
	Report      clientReport
	history     []flowMark
}

type flowMark uint8

const (
	markIdle   flowMark = iota // nothing was answered and nothing failed
	markGood                   // requests were answered
	markFailed                 // a request failed
)

const historyWidth = 40

// add takes the next report of the flow's client.
func (f *demoFlow) add(report clientReport) {
	mark := markIdle
	switch {
	case report.Failed > f.Report.Failed:
		mark = markFailed
	case report.Done > f.Report.Done:
		mark = markGood
	}
	f.history = append(f.history, mark)
	if len(f.history) > historyWidth {
		f.history = f.history[len(f.history)-historyWidth:]
	}
	f.Report = report
}

// demoView shows flows and events: redrawn in place on a terminal, as plain lines elsewhere.
type demoView struct {
	out   io.Writer
	width func() int // columns of the terminal, 0 if it is none that can be drawn on
	color bool
	start time.Time
	flows []*demoFlow
	drawn int // lines of the block that is redrawn
}

// Columns of a flow's line: without a bar, and the narrowest bar that tells something.
const (
	flowWidth = 60
	leastBar  = 8
)

// barWidth is how much of the history fits, 0 if nothing can be drawn: a line that wraps could not be erased.
func (v *demoView) barWidth() int {
	if bar := min(v.width()-flowWidth-1, historyWidth); bar >= leastBar {
		return bar
	}
	return 0
}

// event prints one line about what happens, above the flows.
func (v *demoView) event(format string, args ...any) {
	v.erase()
	fmt.Fprintf(v.out, "%s%5.1f s  %s%s\n", v.style("1"), time.Since(v.start).Seconds(), fmt.Sprintf(format, args...),
		v.style("0"))
	v.draw()
}

// draw shows the flows as they are now. Without a terminal it does nothing: events and the summary tell the story.
func (v *demoView) draw() {
	bar := v.barWidth()
	if bar == 0 || len(v.flows) == 0 {
		return
	}
	v.erase()
	fmt.Fprint(v.out, "\n")
	for _, f := range v.flows {
		failed := ""
		if f.Report.Failed > 0 {
			failed = v.style("31")
		}
		fmt.Fprintf(v.out, "  %-19s %s %6d ok %s%3d failed%s  gap %6.1f ms\n", f.Name, v.bar(f, bar), f.Report.Done,
			failed, f.Report.Failed, v.style("0"), f.Report.Gap)
	}
	v.drawn = len(v.flows) + 1
}

// erase removes the block that draw left.
func (v *demoView) erase() {
	if v.drawn > 0 {
		fmt.Fprintf(v.out, "\x1b[%dA\x1b[J", v.drawn)
		v.drawn = 0
	}
}

// bar is the end of a flow's history, width columns.
func (v *demoView) bar(f *demoFlow, width int) string {
	marks := f.history[max(0, len(f.history)-width):]
	var b strings.Builder
	b.WriteString(strings.Repeat(" ", width-len(marks)))
	for _, mark := range marks {
		switch mark {
		case markGood:
			b.WriteString(v.style("32") + "▪" + v.style("0"))
		case markFailed:
			b.WriteString(v.style("31") + "x" + v.style("0"))
		case markIdle:
			b.WriteString("·")
		}
	}
	return b.String()
}

// style is the sequence that sets a style (ECMA-48, SGR), empty where there are no colors.
func (v *demoView) style(code string) string {
	if !v.color {
		return ""
	}
	return "\x1b[" + code + "m"
}

// summary prints what every flow saw and returns the totals.
func (v *demoView) summary() (done, failed uint64) {
	v.erase()
	fmt.Fprintf(v.out, "\n  %-19s %-32s %8s %6s %9s\n", "client", "dials", "answered", "failed", "worst gap")
	for _, f := range v.flows {
		fmt.Fprintf(v.out, "  %-19s %-32s %8d %6d %6.1f ms\n", f.Name, f.Route, f.Report.Done, f.Report.Failed, f.Report.Gap)
		done, failed = done+f.Report.Done, failed+f.Report.Failed
		if f.Report.Error != "" {
			fmt.Fprintf(v.out, "    last failure: %s\n", f.Report.Error)
		}
	}
	fmt.Fprintln(v.out)
	return done, failed
}
