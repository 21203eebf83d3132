// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"slices"
	"strings"
)

// readBlock reads the style in which nearly every Kubernetes document is written: block mappings and lists, scalars
// on one line, one-line lists of scalars, literal strings, printable ASCII. It is several times as fast as a full
// YAML parser, which large files need (BenchmarkDecode), and it never guesses: whatever is outside of that style,
// wrong or merely unusual, makes it return false and the line that it stopped at, and the full parser decides.
// FuzzBlock holds the two against each other.
func readBlock(text string, line, limit int) (root node, stopped int, ok bool) {
	for i := range len(text) {
		if c := text[i]; c != '\n' && (c < ' ' || c > '~') {
			return node{}, line + strings.Count(text[:i], "\n"), false
		}
	}
	r := blockReader{rest: text, next: line, limit: limit}
	r.advance()
	if r.indent == 0 && isMarker(r.row, "---") {
		if !r.isBlank(r.row[3:]) {
			return node{}, line, false
		}
		r.advance()
	}
	if r.done {
		return node{}, 0, true
	}
	root = r.block(r.indent)
	if !r.done {
		r.fail()
	}
	return root, r.stopped, r.stopped == 0
}

// blockReader stands on a line that has content. Taking the "- " off a line leaves a line with a larger indent, so
// the first field of a mapping inside a list is read like any other.
type blockReader struct {
	rest string
	next int

	row    string
	indent int
	line   int32
	done   bool

	// stopped is the line that was not understood, 0 so far.
	stopped      int
	limit, depth int
	// stack holds the items of the collections that are being read; each is copied to its own slice once its length
	// is known.
	stack []node
}

// advance moves to the next line that has content.
func (r *blockReader) advance() {
	for r.rest != "" {
		row, rest, _ := strings.Cut(r.rest, "\n")
		r.rest, r.line = rest, int32(r.next)
		r.next++
		content := strings.TrimLeft(row, " ")
		if content == "" || content[0] == '#' {
			continue
		}
		r.indent, r.row = len(row)-len(content), strings.TrimRight(content, " ")
		return
	}
	r.row, r.indent, r.done = "", -1, true
}

func (r *blockReader) fail() node {
	if r.stopped == 0 {
		r.stopped = int(r.line)
	}
	r.done, r.rest, r.row, r.indent = true, "", "", -1
	return node{}
}

// count refuses a document that has more nodes than memory is meant for; decode then names the limit.
func (r *blockReader) count() {
	if r.limit--; r.limit < 0 {
		r.fail()
	}
}

// block reads the collection, or the lone scalar, that starts on this line.
func (r *blockReader) block(indent int) node {
	if r.depth++; r.depth > maxDepth {
		return r.fail()
	}
	defer func() { r.depth-- }()
	switch {
	case isItem(r.row):
		return r.list(indent)
	case keyEnd(r.row) > 0:
		return r.mapping(indent)
	}
	return r.fail()
}

func isItem(row string) bool { return row == "-" || strings.HasPrefix(row, "- ") }

// maxKey is the longest key that is read, in bytes. YAML itself ends at 1024, a label's name at 317.
const maxKey = 512

// keyEnd returns the offset of the colon behind a plain key, 0 if the row has none.
func keyEnd(row string) int {
	for i := range min(len(row), maxKey) {
		switch c := row[i]; {
		case c == ':':
			if i+1 == len(row) || row[i+1] == ' ' {
				return i
			}
			return 0
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_':
		case i > 0 && (c == '-' || c == '.' || c == '/'):
		default:
			return 0
		}
	}
	return 0
}

func (r *blockReader) mapping(indent int) node {
	start, line := len(r.stack), r.line
	for !r.done && r.indent == indent {
		end := keyEnd(r.row)
		if end == 0 {
			return r.fail()
		}
		r.count()
		r.stack = append(r.stack, node{line: r.line, text: r.row[:end]})
		// A value may be a list at the key's own indent, the way kubectl prints it.
		value := r.value(r.row[end+1:], indent, true)
		r.stack = append(r.stack, value)
	}
	return r.collect(mapping, start, line, indent)
}

func (r *blockReader) list(indent int) node {
	start, line := len(r.stack), r.line
	for !r.done && r.indent == indent && isItem(r.row) {
		r.count()
		inner := strings.TrimLeft(r.row[1:], " ")
		var item node
		if isItem(inner) || keyEnd(inner) > 0 {
			r.indent += len(r.row) - len(inner)
			r.row = inner
			item = r.block(r.indent)
		} else {
			item = r.value(r.row[1:], indent, false)
		}
		r.stack = append(r.stack, item)
	}
	return r.collect(sequence, start, line, indent)
}

// collect ends a collection. A line that is indented deeper than it belongs to nothing that was read, and must not be
// mistaken for a field of an outer collection.
func (r *blockReader) collect(kind nodeKind, start int, line int32, indent int) node {
	if r.indent > indent {
		return r.fail()
	}
	items := slices.Clone(r.stack[start:])
	r.stack = r.stack[:start]
	return node{kind: kind, line: line, items: items}
}

// value reads what follows a key or a dash: a scalar on the same line, or a block on the next ones.
func (r *blockReader) value(text string, indent int, listBeside bool) node {
	line := r.line
	if r.isBlank(text) {
		r.advance()
		switch {
		case r.indent > indent, listBeside && r.indent == indent && isItem(r.row):
			return r.block(r.indent)
		}
		return node{line: line}
	}
	text = strings.TrimLeft(text, " ")
	if text[0] == '|' {
		return r.literal(text, indent)
	}
	value, rest, ok := r.flow(text, line)
	if !ok || !r.isBlank(rest) {
		return r.fail()
	}
	r.advance()
	if r.indent > indent {
		return r.fail() // a scalar that goes on in the next line, or a mistake
	}
	return value
}

// isBlank tells whether the rest of a line says nothing. A comment needs a space before its #.
func (*blockReader) isBlank(text string) bool {
	text2 := strings.TrimLeft(text, " ")
	return text2 == "" || text2[0] == '#' && len(text2) < len(text)
}

// literal reads the lines below "|" or "|-" as they are. The first of them sets the indent.
func (r *blockReader) literal(header string, indent int) node {
	line := r.line
	if header != "|" && header != "|-" {
		return r.fail()
	}
	first := len(r.rest) - len(strings.TrimLeft(r.rest, " "))
	if first <= indent || r.rest[first:] == "" || r.rest[first] == '\n' {
		return r.fail()
	}
	var text strings.Builder
	blanks := 0
	for r.rest != "" {
		row, rest, ended := strings.Cut(r.rest, "\n")
		spaces := len(row) - len(strings.TrimLeft(row, " "))
		switch {
		case spaces == len(row) && spaces <= first:
			blanks++ // belongs to the text only if more of it follows
		case spaces < first:
			return r.literalEnd(text.String(), header, line, indent)
		default:
			for ; blanks > 0; blanks-- {
				text.WriteByte('\n')
			}
			text.WriteString(row[first:])
			if !ended && header == "|" {
				return r.fail() // no line break to keep
			}
			text.WriteByte('\n')
		}
		r.rest = rest
		r.next++
	}
	return r.literalEnd(text.String(), header, line, indent)
}

func (r *blockReader) literalEnd(text, header string, line int32, indent int) node {
	if header == "|-" {
		text = strings.TrimSuffix(text, "\n")
	}
	r.advance()
	if r.indent > indent {
		return r.fail()
	}
	return node{quoted: true, line: line, text: text}
}
