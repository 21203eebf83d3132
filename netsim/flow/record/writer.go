// SPDX-License-Identifier: Apache-2.0

package record

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Writer writes a recording. It may be used by several goroutines; the first error is kept and returned by Flush.
type Writer struct {
	mu  sync.Mutex
	out *bufio.Writer
	err error
}

// NewWriter begins a recording. scheduling may be empty.
func NewWriter(out io.Writer, role, scheduling string) *Writer {
	w := &Writer{out: bufio.NewWriterSize(out, 64<<10)}
	w.Write(&Start{Version: Version, Time: Now(), Wall: time.Now(), Boot: bootID(), Role: role, PID: os.Getpid(),
		Scheduling: scheduling})
	return w
}

// Write adds a line: a pointer to one of the types of line.go.
func (w *Writer) Write(line any) {
	name := typeName(line)
	if name == "" {
		panic(fmt.Sprintf("record: %T is no line", line))
	}
	text, err := json.Marshal(line)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
	if w.err == nil { // {"late":{"flow":1,…}}
		_, w.err = fmt.Fprintf(w.out, "{%q:%s}\n", name, text)
	}
}

// Flush hands on what was written, and returns the first error that there was.
func (w *Writer) Flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = w.out.Flush()
	}
	if w.err != nil {
		return fmt.Errorf("write recording: %w", w.err)
	}
	return nil
}

// Finish writes End and flushes.
func (w *Writer) Finish() error {
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		return fmt.Errorf("read own processor time: %w", err)
	}
	w.Write(&End{Time: Now(), User: used.Utime.Nano(), System: used.Stime.Nano()})
	return w.Flush()
}

// typeName returns the key of a line, empty for what is none.
func typeName(line any) string {
	switch line.(type) {
	case *Start:
		return "start"
	case *Phase:
		return "phase"
	case *Flow:
		return "flow"
	case *Window:
		return "window"
	case *Late:
		return "late"
	case *Blind:
		return "blind"
	case *Break:
		return "break"
	case *Done:
		return "done"
	case *End:
		return "end"
	}
	return ""
}

// newLine is typeName the other way round.
func newLine(name string) any {
	for _, line := range []any{&Start{}, &Phase{}, &Flow{}, &Window{}, &Late{}, &Blind{}, &Break{}, &Done{}, &End{}} {
		if typeName(line) == name {
			return line
		}
	}
	return nil
}
