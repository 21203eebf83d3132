// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
)

// chunk is the text of one YAML document, or of a run of JSON values, and the line of the file that it starts at.
type chunk struct {
	text string
	line int
}

// splitter cuts a stream where YAML does: before a line that starts with "---", after one that starts with "...".
// Neither can be inside a document, not even inside a quoted or literal string (YAML 1.2.2, section 9.1.2), so this
// needs to know nothing else of the syntax. What stands before the first "---" of a document (comments, %YAML)
// belongs to it.
//
// It holds one document at a time, and no more of the stream.
type splitter struct {
	in    io.Reader
	left  int    // bytes that may still be read
	ended bool   // the stream has
	held  []byte // from the beginning of the document that is being looked at, a part of buffer

	buffer []byte
	// at is where the next line begins in held, seen how far no end of it was found.
	at, seen int
	// line is the number of the next line, start that of the document's first. begun tells whether the document has
	// content yet.
	line, start int
	begun       bool
}

// errTooLong is returned for a stream that is longer than it may be.
var errTooLong = errors.New("the stream is too long")

func newSplitter(in io.Reader, limit int) *splitter {
	return &splitter{in: in, left: limit, line: 1, start: 1}
}

// next returns the next document, io.EOF behind the last one.
func (s *splitter) next() (chunk, error) {
	for {
		end, err := s.row()
		if errors.Is(err, io.EOF) {
			if len(s.held) == 0 {
				return chunk{}, io.EOF
			}
			return s.cut(len(s.held), s.line), nil
		}
		if err != nil {
			return chunk{}, err
		}
		if rest, marked := bytes.CutPrefix(s.held, []byte("\ufeff")); marked && s.line == 1 {
			s.held, end = rest, end-len("\ufeff")
		}
		row, at := s.held[s.at:end], s.at
		switch {
		case isMarker(row, "---"):
			if s.begun {
				return s.cut(at, s.line), nil // and looks at this line again
			}
			s.begun = true
		case isMarker(row, "..."):
			s.line++
			return s.cut(end, s.line), nil
		case !s.begun:
			first := bytes.TrimLeft(row, " \t\r\n")
			s.begun = len(first) > 0 && first[0] != '#' && row[0] != '%'
		}
		s.at, s.seen = end, end
		s.line++
	}
}

// cut returns what is held up to an offset; the next document begins there, in a line of that number.
func (s *splitter) cut(end, line int) chunk {
	c := chunk{string(s.held[:end]), s.start}
	s.held = s.held[end:]
	s.at, s.seen, s.start, s.begun = 0, 0, line, false
	return c
}

// row returns where the line ends that begins at s.at, io.EOF if there is none.
func (s *splitter) row() (int, error) {
	for {
		if i := bytes.IndexByte(s.held[s.seen:], '\n'); i >= 0 {
			return s.seen + i + 1, nil
		}
		s.seen = len(s.held)
		if s.ended {
			if s.at == len(s.held) {
				return 0, io.EOF
			}
			return len(s.held), nil
		}
		if err := s.fill(); err != nil {
			return 0, err
		}
	}
}

// fill reads on.
func (s *splitter) fill() error {
	const step = 64 << 10
	if cap(s.held)-len(s.held) < step {
		if cap(s.buffer)-len(s.held) < step {
			s.buffer = make([]byte, 0, 2*(len(s.held)+step))
		}
		s.held = append(s.buffer[:0], s.held...) // over what was cut off
	}
	n, err := s.in.Read(s.held[len(s.held):cap(s.held)])
	s.held = s.held[:len(s.held)+n]
	if s.left -= n; s.left < 0 {
		return errTooLong
	}
	if errors.Is(err, io.EOF) {
		s.ended, err = true, nil
	}
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	return nil
}

// isMarker tells whether a line is "---" or "...", alone or followed by white space.
func isMarker[T string | []byte](row T, marker string) bool {
	if len(row) < len(marker) || string(row[:len(marker)]) != marker {
		return false
	}
	return len(row) == len(marker) || strings.IndexByte(" \t\r\n", row[len(marker)]) >= 0
}
