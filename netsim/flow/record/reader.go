// SPDX-License-Identifier: Apache-2.0

package record

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// Read calls each for every line of a recording, with a pointer to one of the types of line.go. name is for messages. A
// last line without its newline is of a writer that was killed: it is left out.
func Read(in io.Reader, name string, each func(line any) error) error {
	reader := bufio.NewReaderSize(in, 64<<10)
	for number := 1; ; number++ {
		text, err := reader.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		line, err := parse(text)
		if err == nil && number == 1 {
			if _, is := line.(*Start); !is {
				err = errors.New("a recording begins with a line of type start")
			}
		}
		if err == nil {
			err = each(line)
		}
		if err != nil {
			return fmt.Errorf("%s:%d: %w", name, number, err)
		}
	}
}

// ReadFile is Read of a file.
func ReadFile(path string, each func(line any) error) error {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open recording: %w", err)
	}
	defer file.Close()
	return Read(file, path, each)
}

// parse reads {"TYPE":{…}}.
func parse(text []byte) (any, error) {
	var tagged map[string]json.RawMessage
	if err := json.Unmarshal(text, &tagged); err != nil {
		return nil, fmt.Errorf("parse line: %w", err)
	}
	if len(tagged) != 1 {
		return nil, fmt.Errorf("parse line: an object with one key is wanted, it has %d", len(tagged))
	}
	var name string
	var body []byte
	for name, body = range tagged {
		break // there is one
	}
	line := newLine(name)
	if line == nil {
		return nil, fmt.Errorf("parse line: unknown type %q", name)
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	if start, is := line.(*Start); is {
		// Before anything else, so that a later format is told from a damaged file.
		if err := json.Unmarshal(body, start); err == nil && start.Version != Version {
			return nil, fmt.Errorf("it has format %d, this release reads format %d", start.Version, Version)
		}
	}
	if err := decoder.Decode(line); err != nil {
		return nil, fmt.Errorf("parse line of type %s: %w", name, err)
	}
	return line, nil
}
