// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"fmt"
	"strings"
	"testing"
)

// TestDecodeIsBounded uses limits of a 64th of the usual ones.
func TestDecodeIsBounded(t *testing.T) {
	max := limits{file: MaxFile / 64, document: MaxDocument / 64, unusual: MaxUnusual / 64, values: MaxValues / 64}
	bomb := "apiVersion: v1\nkind: Pod\nmetadata:\n  a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
	for i := 1; i < 12; i++ {
		bomb += fmt.Sprintf("  a%d: &a%d [%s]\n", i, i, strings.Repeat(fmt.Sprintf("*a%d,", i-1), 10))
	}
	comments := "#" + strings.Repeat("x", 1022) + "\n"
	tests := []struct{ name, text, want string }{
		{"file", strings.Repeat(comments, max.file>>10) + "#", "test.yaml: is larger than 1048576 bytes: split it"},
		{"document", "a: b\n" + strings.Repeat(comments, max.document>>10),
			"test.yaml:1: the document is larger than 524288 bytes: split it"},
		{"unusual yaml", "a: b\nc: >-\n  x\n" + strings.Repeat(comments, max.unusual>>10),
			"is larger than 65536 bytes and uses YAML beyond plain block style, from line 2 on"},
		{"aliases", bomb, "too many values, aliases expanded: split it"},
		{"values", "a: [" + strings.Repeat("1,", max.values) + "1]", "uses YAML beyond plain block style"},
		{"json values", "[" + strings.Repeat("1,", max.values) + "1]", "too many values: split it"},
		{"json depth", strings.Repeat("[", max.document), "nested more than 200 deep"},
		{"block depth", strings.Repeat("- ", max.document/2-1) + "x", "uses YAML beyond plain block style"},
		{"yaml depth", strings.Repeat("- ", max.unusual/2-1) + "x", "exceeded max depth"},
		{"flow depth", "a: " + strings.Repeat("[", max.unusual-4), "exceeded max depth"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			docs, _, err := decode(strings.NewReader(tt.text), "test.yaml", max)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%d documents, error %.300v, want %q", len(docs), err, tt.want)
			}
		})
	}
}

// TestUsualLimits holds that Decode reads no further than the largest file.
func TestUsualLimits(t *testing.T) {
	endless := &counter{}
	_, _, err := Decode(endless, "test.yaml")
	if err == nil || !strings.Contains(err.Error(), "test.yaml: is larger than 67108864 bytes") {
		t.Errorf("error %.300v", err)
	}
	if endless.read > 2*MaxFile {
		t.Errorf("%d bytes were read", endless.read)
	}
}

// counter is a file without an end.
type counter struct{ read int }

func (c *counter) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = '#'
	}
	c.read += len(p)
	return len(p), nil
}
