// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"regexp"
	"strconv"
	"strings"
)

// node is one value of a document, whatever syntax it was written in.
type node struct {
	kind nodeKind
	// quoted scalars are strings, whatever they look like; the others mean what their text looks like.
	quoted bool
	line   int32
	text   string
	// items are a sequence's items, or a mapping's keys and values in turn. Keys are scalars.
	items []node
}

type nodeKind uint8

const (
	scalar nodeKind = iota
	mapping
	sequence
)

// meaning is the type of a scalar.
type meaning uint8

const (
	isNull meaning = iota
	isBool
	// isWord is yes, no, on or off: a boolean to the YAML that Kubernetes reads, a string to YAML 1.2.
	isWord
	isInt
	isFloat
	isString
)

// number is what YAML reads as a floating point number; whole numbers are recognized before it is asked.
var number = regexp.MustCompile(`^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$`)

// means tells what type a scalar has to the reader of Kubernetes documents.
func (n *node) means() meaning {
	if n.quoted {
		return isString
	}
	if n.text == "" {
		return isNull
	}
	switch c := n.text[0]; {
	case c >= '0' && c <= '9', c == '+', c == '-', c == '.':
		return numeric(n.text)
	case len(n.text) > len("false"):
		return isString
	}
	switch n.text {
	case "~", "null", "Null", "NULL":
		return isNull
	case "true", "True", "TRUE", "false", "False", "FALSE":
		return isBool
	case "yes", "Yes", "YES", "no", "No", "NO", "on", "On", "ON", "off", "Off", "OFF":
		return isWord
	}
	return isString
}

func numeric(text string) meaning {
	dots, others := 0, 0
	for i := range len(text) {
		switch c := text[i]; {
		case c == '.':
			dots++
		case c < '0' || c > '9':
			others++
		}
	}
	// Most of what starts with a digit is an address or a small number: neither should cost a regular expression.
	switch {
	case dots > 1:
		return isString
	case dots+others == 0 && text[0] != '0' && len(text) < 19:
		return isInt
	}
	if _, err := wholeNumber(text); err == nil {
		return isInt
	}
	if number.MatchString(text) {
		return isFloat
	}
	switch strings.TrimLeft(text, "+-") {
	case ".inf", ".Inf", ".INF", ".nan", ".NaN", ".NAN":
		return isFloat
	}
	return isString
}

// wholeNumber reads decimal, 0x, 0o, 0b and, as YAML 1.1 and Kubernetes do, 0-prefixed octal numbers.
func wholeNumber(text string) (int64, error) {
	return strconv.ParseInt(text, 0, 64)
}

func (n *node) isNull() bool { return n.kind == scalar && n.means() == isNull }

// truth is the value of a boolean.
func (n *node) truth() bool {
	switch strings.ToLower(n.text) {
	case "true", "yes", "on":
		return true
	}
	return false
}

// field returns the value of a mapping's key, nil if it has none.
func (n *node) field(key string) *node {
	if n.kind != mapping {
		return nil
	}
	for i := 0; i < len(n.items); i += 2 {
		if n.items[i].text == key {
			return &n.items[i+1]
		}
	}
	return nil
}

// str returns the text of a mapping's key if that is a string, "" otherwise.
func (n *node) str(key string) string {
	if f := n.field(key); f != nil && f.kind == scalar && f.means() == isString {
		return f.text
	}
	return ""
}

// lineOf returns the line of the field at a path like "spec.ports[0].port", or of the last step of it that is there.
func (n *node) lineOf(path string) int {
	for path != "" {
		end := strings.IndexAny(path[1:], ".[") + 1
		if end == 0 {
			end = len(path)
		}
		var next *node
		if step := path[:end]; step[0] == '[' {
			i, err := strconv.Atoi(strings.Trim(step, "[]"))
			if err == nil && n.kind == sequence && i < len(n.items) {
				next = &n.items[i]
			}
		} else {
			next = n.field(step)
		}
		if next == nil {
			break
		}
		n, path = next, strings.TrimPrefix(path[end:], ".")
	}
	return int(n.line)
}

// describe names a value in an error.
func (n *node) describe() string {
	switch n.kind {
	case mapping:
		return "a mapping"
	case sequence:
		return "a list"
	}
	text := n.text
	if len(text) > 40 {
		text = text[:37] + "..."
	}
	switch n.means() {
	case isNull:
		return "null"
	case isBool, isWord:
		return "the boolean " + text
	case isInt, isFloat:
		return "the number " + text
	}
	return "the string " + strconv.Quote(text)
}
