// SPDX-License-Identifier: Apache-2.0

package manifest

import "strings"

// chunk is the text of one YAML document, or of a run of JSON values, and the line of the file that it starts at.
type chunk struct {
	text string
	line int
}

// split cuts a stream where YAML does: before a line that starts with "---", after one that starts with "...".
// Neither can be inside a document, not even inside a quoted or literal string (YAML 1.2.2, section 9.1.2), so this
// needs to know nothing else of the syntax. What stands before the first "---" of a document (comments, %YAML)
// belongs to it.
func split(text string) []chunk {
	var chunks []chunk
	start, startLine, line := 0, 1, 1
	begun := false
	cut := func(at, next int) {
		chunks = append(chunks, chunk{text[start:at], startLine})
		start, startLine, begun = at, next, false
	}
	for at := 0; at < len(text); line++ {
		end := at + len(text[at:])
		if i := strings.IndexByte(text[at:], '\n'); i >= 0 {
			end = at + i + 1
		}
		switch row := text[at:end]; {
		case isMarker(row, "---"):
			if begun {
				cut(at, line)
			}
			begun = true
		case isMarker(row, "..."):
			cut(end, line+1)
		case !begun:
			first := strings.TrimLeft(row, " \t\r\n")
			begun = first != "" && first[0] != '#' && row[0] != '%'
		}
		at = end
	}
	if start < len(text) {
		cut(len(text), line)
	}
	return chunks
}

// isMarker tells whether a line is "---" or "...", alone or followed by white space.
func isMarker(row, marker string) bool {
	if !strings.HasPrefix(row, marker) {
		return false
	}
	return len(row) == len(marker) || strings.IndexByte(" \t\r\n", row[len(marker)]) >= 0
}
