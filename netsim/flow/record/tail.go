// SPDX-License-Identifier: Apache-2.0

package record

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
)

// Tail reads a recording that is still being written.
type Tail struct {
	file *os.File
	// begun is the beginning of a line, the rest of which is not written yet.
	begun  []byte
	number int
}

// OpenTail opens a recording; Close it.
func OpenTail(path string) (*Tail, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open recording: %w", err)
	}
	return &Tail{file: file}, nil
}

// Next calls each as Read does, for every line that was finished since it was last called.
func (t *Tail) Next(each func(line any) error) error {
	buffer := make([]byte, 32<<10)
	for {
		n, err := t.file.Read(buffer)
		t.begun = append(t.begun, buffer[:n]...)
		for {
			text, rest, whole := bytes.Cut(t.begun, []byte{'\n'})
			if !whole {
				break
			}
			t.number++
			line, err := parse(text)
			if err == nil {
				err = each(line)
			}
			if err != nil {
				return fmt.Errorf("%s:%d: %w", t.file.Name(), t.number, err)
			}
			t.begun = rest
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read recording: %w", err)
		}
	}
}

// Close closes the recording.
func (t *Tail) Close() error { return t.file.Close() }
