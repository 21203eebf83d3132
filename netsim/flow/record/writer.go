// SPDX-License-Identifier: Apache-2.0

package record

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
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
	var text []byte
	var err error
	if window, is := line.(*Window); is {
		text = window.appendJSON(nil)
	} else {
		text, err = json.Marshal(line)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
	if w.err == nil { // {"late":{"flow":1,…}}
		_, w.err = fmt.Fprintf(w.out, "{%q:%s}\n", name, text)
	}
}

// appendJSON does what json.Marshal does, in a tenth of the time: with a thousand flows, to count them would otherwise
// make them late.
func (w *Window) appendJSON(b []byte) []byte {
	unsigned := func(key string, n uint64) { b = strconv.AppendUint(append(b, key...), n, 10) }
	signed := func(key string, n int64) { b = strconv.AppendInt(append(b, key...), n, 10) }
	unsigned(`{"flow":`, w.Flow)
	signed(`,"from":`, w.From)
	signed(`,"to":`, w.To)
	unsigned(`,"sent":`, w.Sent)
	unsigned(`,"received":`, w.Received)
	signed(`,"worst":`, w.Worst)
	return append(b, '}')
}

// Say writes a line that is no part of the recording, after what was written before, and flushes.
func (w *Writer) Say(what string) error {
	w.mu.Lock()
	if w.err == nil {
		_, w.err = w.out.WriteString(what + "\n")
	}
	w.mu.Unlock()
	return w.Flush()
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
	case *Stall:
		return "stall"
	case *Standstill:
		return "standstill"
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
	for _, line := range []any{
		&Start{}, &Phase{}, &Flow{}, &Window{}, &Late{}, &Blind{}, &Stall{}, &Standstill{}, &Break{}, &Done{}, &End{},
	} {
		if typeName(line) == name {
			return line
		}
	}
	return nil
}
