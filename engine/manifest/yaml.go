// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	yaml "go.yaml.in/yaml/v3"
)

// yamlLine is how the parser starts the text of a syntax error.
var yamlLine = regexp.MustCompile(`^line ([0-9]+): `)

var yamlAnchor = regexp.MustCompile(`^unknown anchor '([^']+)' referenced`)

// readYAML reads a document with the full YAML parser. Anchors are expanded, with a budget of limit nodes, so that a
// few lines of nested aliases cannot become gigabytes.
func readYAML(text string, line, limit int) (root node, failure *Error) {
	// A parser of a language as large as YAML has had panics before. A bad file must not take a process down that
	// has good ones to serve.
	defer func() {
		if p := recover(); p != nil {
			root, failure = node{}, &Error{Line: line, Reason: fmt.Sprintf("YAML parser gave up: %v", p)}
		}
	}()
	var document yaml.Node
	if err := yaml.Unmarshal([]byte(text), &document); err != nil {
		return node{}, syntaxError(err, text, line)
	}
	if len(document.Content) == 0 {
		return node{}, nil
	}
	c := yamlConverter{line: line - 1, left: limit, open: map[*yaml.Node]bool{}}
	return c.convert(document.Content[0])
}

// fromZero are the errors in which the parser counts lines from 0.
var fromZero = regexp.MustCompile(
	`^(did not find expected (key|'-' indicator|node content|'|<)|found a tab character that violates)`)

// vague ends the reasons that come with the line of the block around the mistake more often than with its own.
const vague = ", here or further down in this block"

// syntaxError finds the line of what the parser complains about, which the parser leaves out in some errors.
func syntaxError(err error, text string, line int) *Error {
	reason := strings.TrimPrefix(err.Error(), "yaml: ")
	before := text[:0]
	if m := yamlLine.FindStringSubmatch(reason); m != nil {
		at, _ := strconv.Atoi(m[1])
		reason = reason[len(m[0]):]
		if fromZero.MatchString(reason) {
			at++
		}
		if strings.HasSuffix(reason, "expected key") || strings.HasSuffix(reason, "'-' indicator") {
			reason += vague
		}
		line += min(at-1, strings.Count(text, "\n"))
	} else if m := yamlAnchor.FindStringSubmatch(reason); m != nil {
		before, _, _ = strings.Cut(text, "*"+m[1])
	} else if i := strings.IndexFunc(text, unreadable); i >= 0 {
		before = text[:i]
	}
	return &Error{Line: line + strings.Count(before, "\n"), Reason: "invalid YAML: " + reason}
}

// unreadable is a character that YAML does not allow, or a byte that is not UTF-8.
func unreadable(r rune) bool {
	return r == utf8.RuneError || r < ' ' && r != '\n' && r != '\r' && r != '\t' || r == 0x7f
}

type yamlConverter struct {
	line, left int
	// open are the anchors that are being expanded: one that contains itself would never end.
	open map[*yaml.Node]bool
}

func (c *yamlConverter) convert(y *yaml.Node) (node, *Error) {
	if c.left--; c.left < 0 {
		return node{}, c.refuse(y, "the document has too many values, aliases expanded: split it")
	}
	n := node{line: int32(c.line + y.Line)}
	switch y.Kind {
	case yaml.AliasNode:
		if c.open[y.Alias] {
			return node{}, c.refuse(y, "the anchor contains itself")
		}
		c.open[y.Alias] = true
		defer delete(c.open, y.Alias)
		return c.convert(y.Alias)
	case yaml.ScalarNode:
		return c.scalar(n, y)
	case yaml.SequenceNode:
		n.kind = sequence
	case yaml.MappingNode:
		n.kind = mapping
		return c.mapping(n, y)
	}
	n.items = make([]node, 0, len(y.Content))
	for _, child := range y.Content {
		item, err := c.convert(child)
		if err != nil {
			return node{}, err
		}
		n.items = append(n.items, item)
	}
	return n, nil
}

func (c *yamlConverter) scalar(n node, y *yaml.Node) (node, *Error) {
	n.text = y.Value
	n.quoted = y.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0
	if y.Style&yaml.TaggedStyle == 0 {
		return n, nil
	}
	switch y.Tag {
	case "!!str":
		n.quoted = true
	case "!!int", "!!bool", "!!float", "!!null":
		n.quoted = false
	default:
		return node{}, c.refuse(y, "the tag "+y.Tag+" means nothing in a Kubernetes document")
	}
	return n, nil
}

// mapping converts the fields, then adds those of the mappings that "<<" names and that are not there yet.
func (c *yamlConverter) mapping(n node, y *yaml.Node) (node, *Error) {
	n.items = make([]node, 0, len(y.Content))
	var merged []*yaml.Node
	for i := 0; i+1 < len(y.Content); i += 2 {
		if y.Content[i].Tag == "!!merge" {
			merged = append(merged, y.Content[i+1])
			continue
		}
		key, err := c.convert(y.Content[i])
		if err != nil {
			return node{}, err
		}
		if key.kind != scalar {
			return node{}, c.refuse(y.Content[i], "a key must be a string, not "+key.describe())
		}
		value, err := c.convert(y.Content[i+1])
		if err != nil {
			return node{}, err
		}
		n.items = append(n.items, key, value)
	}
	if len(merged) == 0 {
		return n, nil
	}
	known := make(map[string]bool, len(n.items)/2)
	for i := 0; i < len(n.items); i += 2 {
		known[n.items[i].text] = true
	}
	for _, m := range merged {
		if err := c.merge(&n, known, m); err != nil {
			return node{}, err
		}
	}
	return n, nil
}

func (c *yamlConverter) merge(n *node, known map[string]bool, y *yaml.Node) *Error {
	from, err := c.convert(y)
	if err != nil {
		return err
	}
	sources := []node{from}
	if from.kind == sequence {
		sources = from.items
	}
	for _, s := range sources {
		if s.kind != mapping {
			return c.refuse(y, "<< needs a mapping, not "+s.describe())
		}
		for i := 0; i < len(s.items); i += 2 {
			if !known[s.items[i].text] {
				known[s.items[i].text] = true
				n.items = append(n.items, s.items[i], s.items[i+1])
			}
		}
	}
	return nil
}

func (c *yamlConverter) refuse(y *yaml.Node, reason string) *Error {
	return &Error{Line: c.line + y.Line, Reason: reason}
}
