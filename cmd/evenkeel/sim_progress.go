// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// progress shows on a terminal how far long work has come, in one line that is written over. Elsewhere it is silent.
type progress struct {
	out   io.Writer // nil: nobody looks
	mu    sync.Mutex
	last  time.Time
	stage string
}

func newProgress(out io.Writer) *progress {
	if !isTerminal(out) {
		return &progress{}
	}
	return &progress{out: out}
}

// show may be called from several goroutines. Of quick steps it shows some.
func (p *progress) show(stage string, done, total int) {
	if p.out == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if stage == p.stage && done < total && time.Since(p.last) < 50*time.Millisecond {
		return
	}
	p.stage, p.last = stage, time.Now()
	fmt.Fprintf(p.out, "\r\x1b[K%s", stage)
	if total > 0 { // otherwise there is nothing to count
		fmt.Fprintf(p.out, " %d/%d", done, total)
	}
}

// clear removes the line.
func (p *progress) clear() {
	if p.out != nil && p.stage != "" {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}

func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS)
	return err == nil
}
