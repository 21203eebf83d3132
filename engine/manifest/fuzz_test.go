// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func seeds(f *testing.F) {
	for _, text := range []string{
		string(cluster(1)), serviceHead, sliceHead, podHead,
		"---\na: b\n---\n{\"apiVersion\":\"v1\",\"kind\":\"List\",\"items\":[{\"kind\":\"Pod\"}]}",
		"apiVersion: v1\nkind: Node\nmetadata:\n  name: a\n  labels:\n    x: \"y\"\n    z: 'w' # c\n",
		"a: |\n  x\n\n   y\nb: |-\n  z\nc: [1, \"2\", '3', d e]\n" +
			"d: {}\ne: []\nf:\n- g: h\n  i:\n  - j\n-\n- - k\n  - l\n",
		"a: &x [b]\nc: *x\nd:\n  <<: {e: f}\n", "? a\n: b\n", "%YAML 1.1\n---\na: !!str 1\n",
		"a: >-\n  b\n  c\n", "\ufeffa: b\r\nc:\td\n",
		"a: b\n  c\n", "a: \"b\n  c\"\n", "a:\n\n  # x\n  b: c\n # y\nd: -1\ne: - f\n",
		"a:  'b''c'\nb: x#y\nc: x #y\nd: #y\n", "a: b: c\n", "- a: 1\n   b: 2\n",
		" ---", "0: \r0", strings.Repeat("k", 1100) + ": v",
	} {
		f.Add(text)
	}
}

// FuzzDecode holds that no input makes the decoder panic, that an error has a place, and that what was accepted has
// keys that are unique and valid.
func FuzzDecode(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, text string) {
		docs, _, err := Decode(strings.NewReader(text), "f")
		if err != nil {
			var refused *Error
			if !errors.As(err, &refused) || refused.Line < 1 || refused.Line > lines(text) {
				t.Errorf("error without a place in the text: %v", err)
			}
			return
		}
		if err := unique(docs); err != nil {
			t.Error(err)
		}
		for _, d := range docs {
			if err := newChecker().check(d.Object); err != nil {
				t.Errorf("%s passed, then did not: %v", d.Key(), err)
			}
		}
	})
}

// lines counts lines the way YAML 1.1 does, which has more line breaks than editors have.
func lines(text string) int {
	n := 1
	for _, lineBreak := range []string{"\n", "\r", "\u0085", "\u2028", "\u2029"} {
		n += strings.Count(text, lineBreak)
	}
	return n
}

// FuzzBlock holds the block reader against the full parser: what the one accepts, the other must read as the same
// tree.
func FuzzBlock(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, text string) {
		for _, c := range split(t, text) {
			got, _, ok := readBlock(c.text, c.line, 1<<16)
			if !ok {
				continue
			}
			want, err := readYAML(c.text, c.line, 1<<20)
			if err != nil {
				t.Fatalf("%q: accepted, but %v", c.text, err)
			}
			if diff := cmp.Diff(plainTree(&want), plainTree(&got)); diff != "" {
				t.Fatalf("%q: yaml - block +\n%s", c.text, diff)
			}
		}
	})
}

type tree struct {
	Kind    nodeKind
	Meaning meaning
	Line    int32
	Text    string
	Items   []tree
}

// plainTree drops what the readers may differ in: the line of a value that is not there.
func plainTree(n *node) tree {
	t := tree{Kind: n.kind, Line: n.line, Text: n.text}
	if n.kind == scalar {
		t.Meaning = n.means()
		if n.text == "" {
			t.Line = 0
		}
	}
	for i := range n.items {
		t.Items = append(t.Items, plainTree(&n.items[i]))
	}
	return t
}
