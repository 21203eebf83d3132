// SPDX-License-Identifier: Apache-2.0

package netsim

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// The acts that change a lab as a whole.
const (
	actUp    = "up"
	actApply = "apply"
	actDown  = "down"
)

// entry is a line of the journal: an act that begins, or the same one done.
type entry struct {
	Time time.Time `json:"time"`
	Act  string    `json:"act"`
	Done bool      `json:"done,omitempty"`
	// By is the process that does it.
	By Process `json:"by"`
}

// note appends to the journal. An act is noted before it touches anything, and again when it is done, so that a lab
// whose maker was killed can be told from one that is being made or that is whole.
func (p paths) note(act string, done bool, by Process) error {
	line, err := json.Marshal(entry{Time: time.Now(), Act: act, Done: done, By: by})
	if err != nil {
		return fmt.Errorf("encode journal: %w", err)
	}
	file, err := os.OpenFile(p.journal(), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("open journal: %w", err)
	}
	_, err = file.Write(append(line, '\n'))
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	return nil
}

// lastEntry returns the last whole line of the journal; a torn one is of a writer that was killed. There may be none.
func (p paths) lastEntry() (*entry, error) {
	text, err := os.ReadFile(p.journal())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	var last *entry
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		var e entry
		if json.Unmarshal(lines.Bytes(), &e) == nil {
			last = &e
		}
	}
	return last, nil
}

// whole returns the state of a lab that is up, nil if there is none: it is being made or removed, or that was
// interrupted. An apply that was interrupted can be repeated, so what it left still counts as a lab.
func (p paths) whole() (*state, error) {
	last, err := p.lastEntry()
	if err != nil || last == nil || last.Act == actDown {
		return nil, err
	}
	s, err := readState(p.state())
	if err != nil || s == nil || !s.Up {
		return nil, err
	}
	return s, nil
}
