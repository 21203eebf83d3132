// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/onsi/ginkgo/v2/types"
	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/chaos/report"
	"github.com/evenkeel/evenkeel/chaos/result"
	"github.com/evenkeel/evenkeel/cmd/internal/command"
)

// progress says which spec runs and how those before it ended: a line for each that has ended, and on a terminal one
// more for the one that runs.
type progress struct {
	mu       sync.Mutex
	out      io.Writer
	terminal bool
	total    int
	done     int
	running  string
	since    time.Time
	ticker   *time.Ticker
	stop     chan struct{}
}

// newProgress writes to standard error where standard output is for a program.
func newProgress(e command.Env, form command.Output) *progress {
	p := &progress{out: e.Stdout, ticker: time.NewTicker(time.Second), stop: make(chan struct{})}
	if form == "json" {
		p.out = e.Stderr
	}
	if file, is := p.out.(*os.File); is && e.Getenv("TERM") != "dumb" {
		_, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS)
		p.terminal = err == nil
	}
	go func() { // until close
		for {
			select {
			case <-p.ticker.C:
				p.mu.Lock()
				p.draw()
				p.mu.Unlock()
			case <-p.stop:
				return
			}
		}
	}()
	return p
}

func (p *progress) close() {
	p.ticker.Stop()
	close(p.stop)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.erase()
}

func (p *progress) begin(r types.Report) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.total = r.PreRunStats.SpecsThatWillRun
	if !r.SuiteConfig.DryRun {
		fmt.Fprintf(p.out, "%d of %d specs, seed %d\n", p.total, r.PreRunStats.TotalSpecs, r.SuiteConfig.RandomSeed)
	}
}

func (p *progress) start(s types.SpecReport) {
	if s.State.Is(types.SpecStateSkipped | types.SpecStatePending) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running, p.since = s.FullText(), time.Now()
	p.draw()
}

func (p *progress) end(s types.SpecReport) {
	if s.State.Is(types.SpecStatePending) || s.State.Is(types.SpecStateSkipped) && s.Failure.Message == "" || s.RunTime == 0 {
		return // a filter left it out, or it is listed only
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.erase()
	p.running = ""
	p.done++
	spec, err := report.OfSpec(s)
	if err != nil {
		spec.Failure += err.Error()
	}
	mark := map[string]string{report.Passed: "ok", report.Failed: "FAILED", report.Skipped: "skipped"}[spec.State]
	fmt.Fprintf(p.out, "%3d/%d %-7s %6.1f s  %s", p.done, p.total, mark, spec.Seconds, s.FullText())
	if spec.Result != nil && len(spec.Result.Runs) > 0 {
		var t result.Totals
		t.Add(spec.Result)
		if t.Flows.Intact+t.Flows.Stalled+t.Flows.Broken > 0 {
			fmt.Fprintf(p.out, ": %d intact", t.Flows.Intact)
			if t.Flows.Stalled+t.Flows.Broken > 0 {
				fmt.Fprintf(p.out, ", %d stalled, %d broken", t.Flows.Stalled, t.Flows.Broken)
			}
			fmt.Fprintf(p.out, ", worst gap %.1f ms of %.1f ms", t.WorstGap, t.Budget)
		}
	}
	fmt.Fprintln(p.out)
	if spec.State != report.Passed && spec.Failure != "" {
		for _, line := range lines(spec.Failure, 8) {
			fmt.Fprintf(p.out, "        %s\n", line)
		}
	}
}

// draw shows what runs, on a terminal.
func (p *progress) draw() {
	if !p.terminal || p.running == "" {
		return
	}
	text := fmt.Sprintf("%3d/%d running %6.0f s  %s", p.done+1, p.total, time.Since(p.since).Seconds(), p.running)
	if runes := []rune(text); len(runes) > p.columns()-1 {
		text = string(runes[:max(p.columns()-2, 0)]) + "…"
	}
	p.erase()
	fmt.Fprint(p.out, text)
}

// erase removes what draw has drawn (ECMA-48, EL).
func (p *progress) erase() {
	if p.terminal {
		fmt.Fprint(p.out, "\r\x1b[2K")
	}
}

func (p *progress) columns() int {
	const fallback = 80
	file, is := p.out.(*os.File)
	if !is {
		return fallback
	}
	size, err := unix.IoctlGetWinsize(int(file.Fd()), unix.TIOCGWINSZ)
	if err != nil || size.Col == 0 {
		return fallback
	}
	return int(size.Col)
}

// lines are the first of a text, none of them empty.
func lines(text string, most int) []string {
	var out []string
	for line := range strings.Lines(text) {
		if line = strings.TrimRight(line, " \n"); line != "" && len(out) < most {
			out = append(out, line)
		}
	}
	return out
}
