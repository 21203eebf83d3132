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
	out      io.Writer
	terminal bool
	start    time.Time
	flows    []*demoFlow
	drawn    int // lines of the block that is redrawn
}

// event prints one line about what happens, above the flows.
func (v *demoView) event(format string, args ...any) {
	v.erase()
	mark := ""
	if v.terminal {
		mark = "\x1b[1m"
	}
	fmt.Fprintf(v.out, "%s%5.1f s  %s%s\n", mark, time.Since(v.start).Seconds(), fmt.Sprintf(format, args...), v.reset())
	v.draw()
}

// draw shows the flows as they are now. Without a terminal it does nothing: events and the summary tell the story.
func (v *demoView) draw() {
	if !v.terminal || len(v.flows) == 0 {
		return
	}
	v.erase()
	fmt.Fprint(v.out, "\n")
	for _, f := range v.flows {
		fmt.Fprintf(v.out, "  %-22s %s %7d ok %s%4d failed%s  gap %5.1f ms\n", f.Name, v.bar(f), f.Report.Done,
			v.red(f.Report.Failed > 0), f.Report.Failed, v.reset(), f.Report.Gap)
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

func (v *demoView) bar(f *demoFlow) string {
	var b strings.Builder
	b.WriteString(strings.Repeat(" ", historyWidth-len(f.history)))
	for _, mark := range f.history {
		switch mark {
		case markGood:
			b.WriteString("\x1b[32m▪\x1b[0m")
		case markFailed:
			b.WriteString("\x1b[31mx\x1b[0m")
		case markIdle:
			b.WriteString("·")
		}
	}
	return b.String()
}

func (v *demoView) red(on bool) string {
	if v.terminal && on {
		return "\x1b[31m"
	}
	return ""
}

func (v *demoView) reset() string {
	if v.terminal {
		return "\x1b[0m"
	}
	return ""
}

// summary prints what every flow saw and returns the totals.
func (v *demoView) summary() (done, failed uint64) {
	v.erase()
	fmt.Fprintf(v.out, "\n  %-22s %-28s %10s %8s %12s\n", "client", "dials", "answered", "failed", "longest gap")
	for _, f := range v.flows {
		fmt.Fprintf(v.out, "  %-22s %-28s %10d %8d %9.1f ms\n", f.Name, f.Route, f.Report.Done, f.Report.Failed, f.Report.Gap)
		done, failed = done+f.Report.Done, failed+f.Report.Failed
		if f.Report.Error != "" {
			fmt.Fprintf(v.out, "    last failure: %s\n", f.Report.Error)
		}
	}
	fmt.Fprintln(v.out)
	return done, failed
}
