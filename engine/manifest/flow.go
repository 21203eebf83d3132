// SPDX-License-Identifier: Apache-2.0

package manifest

import "strings"

// flow reads one scalar, or a list of scalars in brackets, and returns what follows it.
func (r *blockReader) flow(text string, line int32) (value node, rest string, ok bool) {
	switch text[0] {
	case '[':
		return r.flowList(text, line)
	case '{':
		rest = strings.TrimLeft(text[1:], " ")
		if strings.HasPrefix(rest, "}") {
			return node{kind: mapping, line: line}, rest[1:], true
		}
		return node{}, "", false
	case '"', '\'':
		return quoted(text, line)
	}
	return plain(text, line)
}

func (r *blockReader) flowList(text string, line int32) (value node, rest string, ok bool) {
	value = node{kind: sequence, line: line}
	rest = strings.TrimLeft(text[1:], " ")
	if strings.HasPrefix(rest, "]") {
		return value, rest[1:], true
	}
	for rest != "" && r.stopped == 0 {
		r.count()
		var item node
		if rest[0] == '"' || rest[0] == '\'' {
			item, rest, ok = quoted(rest, line)
		} else {
			end := strings.IndexAny(rest, ",]")
			if end <= 0 || strings.ContainsAny(rest[:end], "{}[\"'#") {
				return node{}, "", false
			}
			var over string
			item, over, ok = plain(strings.TrimRight(rest[:end], " "), line)
			ok = ok && over == ""
			rest = rest[end:]
		}
		rest = strings.TrimLeft(rest, " ")
		if !ok || rest == "" {
			return node{}, "", false
		}
		value.items = append(value.items, item)
		if rest[0] == ']' {
			return value, rest[1:], true
		}
		if rest[0] != ',' {
			return node{}, "", false
		}
		rest = strings.TrimLeft(rest[1:], " ")
	}
	return node{}, "", false
}

// quoted reads a string in quotes without line breaks; of the escapes only those that JSON and Go print most.
func quoted(text string, line int32) (value node, rest string, ok bool) {
	value = node{quoted: true, line: line}
	if text[0] == '\'' {
		end := strings.IndexByte(text[1:], '\'')
		if end < 0 || strings.HasPrefix(text[end+2:], "'") {
			return node{}, "", false
		}
		value.text = text[1 : end+1]
		return value, text[end+2:], true
	}
	end := strings.IndexAny(text[1:], `"\`)
	if end >= 0 && text[end+1] == '"' {
		value.text = text[1 : end+1]
		return value, text[end+2:], true
	}
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		switch c := text[i]; c {
		case '"':
			value.text = b.String()
			return value, text[i+1:], true
		case '\\':
			i++
			if i == len(text) {
				return node{}, "", false
			}
			switch text[i] {
			case '"', '\\':
				b.WriteByte(text[i])
			case 'n':
				b.WriteByte('\n')
			case 't':
				b.WriteByte('\t')
			default:
				return node{}, "", false
			}
		default:
			b.WriteByte(c)
		}
	}
	return node{}, "", false
}

// plain reads a scalar without quotes up to a comment or the end of the line.
func plain(text string, line int32) (value node, rest string, ok bool) {
	switch c := text[0]; {
	case strings.IndexByte("!&*|>%@`?,[]{}#\"'", c) >= 0:
		return node{}, "", false
	case (c == '-' || c == ':') && (len(text) == 1 || text[1] == ' '):
		return node{}, "", false
	}
	if i := strings.Index(text, " #"); i >= 0 {
		text, rest = strings.TrimRight(text[:i], " "), text[i:]
	}
	if text[len(text)-1] == ':' || strings.Contains(text, ": ") {
		return node{}, "", false
	}
	return node{line: line, text: text}, rest, true
}
