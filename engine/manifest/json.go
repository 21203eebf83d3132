// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxDepth is how deep values may nest where the reader is ours; the deepest field of a Pod is at about 20. The YAML
// parser has a limit of 10,000 itself.
const maxDepth = 200

// readJSON reads a run of JSON values, as kubectl prints them.
func readJSON(text string, line, limit int) ([]node, *Error) {
	r := jsonReader{text: text, line: line, left: limit, decoder: json.NewDecoder(strings.NewReader(text))}
	r.decoder.UseNumber()
	var roots []node
	for {
		root, err := r.value(0)
		if errors.Is(err, io.EOF) {
			return roots, nil
		}
		if err != nil {
			return nil, r.refuse(err)
		}
		roots = append(roots, root)
	}
}

type jsonReader struct {
	text    string
	decoder *json.Decoder
	// line is that of offset at.
	line, at int
	left     int
}

func (r *jsonReader) refuse(err error) *Error {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		// Offset counts from the start of the value that was being read or of the stream, by what failed; the
		// decoder's own offset is right to the token.
		return &Error{Line: r.lineAt(r.decoder.InputOffset()), Reason: "invalid JSON: " + syntax.Error()}
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return &Error{Line: r.lineAt(int64(len(r.text))), Reason: "invalid JSON: the text ends inside a value"}
	}
	return &Error{Line: r.lineAt(r.decoder.InputOffset()), Reason: "invalid JSON: " + err.Error()}
}

// lineAt is only ever asked for growing offsets.
func (r *jsonReader) lineAt(offset int64) int {
	end := min(int(offset), len(r.text))
	if end > r.at {
		r.line += strings.Count(r.text[r.at:end], "\n")
		r.at = end
	}
	return r.line
}

func (r *jsonReader) value(depth int) (node, error) {
	token, err := r.decoder.Token()
	if err != nil {
		return node{}, err
	}
	if r.left--; r.left < 0 {
		return node{}, errors.New("the document has too many values: split it")
	}
	n := node{line: int32(r.lineAt(r.decoder.InputOffset()))}
	switch t := token.(type) {
	case json.Delim:
		return r.collection(n, t, depth+1)
	case string:
		n.quoted, n.text = true, t
	case json.Number:
		n.text = t.String()
	case bool:
		n.text = fmt.Sprint(t)
	case nil:
		n.text = "null"
	}
	return n, nil
}

func (r *jsonReader) collection(n node, open json.Delim, depth int) (node, error) {
	if depth > maxDepth {
		return node{}, fmt.Errorf("values are nested more than %d deep", maxDepth)
	}
	n.kind = mapping
	if open == '[' {
		n.kind = sequence
	}
	for r.decoder.More() {
		item, err := r.value(depth)
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return node{}, err
		}
		n.items = append(n.items, item)
	}
	if _, err := r.decoder.Token(); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return node{}, err
	}
	return n, nil
}
