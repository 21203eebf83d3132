// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// split returns all documents of a text.
func split(t testing.TB, text string) []chunk {
	t.Helper()
	return splitFrom(t, strings.NewReader(text))
}

func splitFrom(t testing.TB, in io.Reader) (chunks []chunk) {
	t.Helper()
	s := newSplitter(in, MaxFile)
	for {
		c, err := s.next()
		if errors.Is(err, io.EOF) {
			return chunks
		}
		if err != nil {
			t.Fatal(err)
		}
		chunks = append(chunks, c)
	}
}

// Where documents begin does not depend on the pieces that a stream comes in.
func TestSplit(t *testing.T) {
	for _, c := range []struct {
		text string
		want []chunk
	}{
		{"", nil},
		{"a: b", []chunk{{"a: b", 1}}},
		{"\ufeffa: b\n", []chunk{{"a: b\n", 1}}},
		{"# c\n---\na: b\n---\nc: d", []chunk{{"# c\n---\na: b\n", 1}, {"---\nc: d", 4}}},
		{"---\n---\n", []chunk{{"---\n", 1}, {"---\n", 2}}},
		{"a: b\n...\n# c\n%YAML 1.1\n---\nd: e\n", []chunk{{"a: b\n...\n", 1}, {"# c\n%YAML 1.1\n---\nd: e\n", 3}}},
		{"a: |\n  ---\n  ...\n---x\n--- y\nb\n", []chunk{{"a: |\n  ---\n  ...\n---x\n", 1}, {"--- y\nb\n", 5}}},
		{"a:\r\n---\r\nb:\r\n", []chunk{{"a:\r\n", 1}, {"---\r\nb:\r\n", 2}}},
		{strings.Repeat("a", 200_000) + "\n---\nb", []chunk{{strings.Repeat("a", 200_000) + "\n", 1}, {"---\nb", 2}}},
	} {
		for name, in := range map[string]io.Reader{
			"at once": strings.NewReader(c.text), "by bytes": iotest.OneByteReader(strings.NewReader(c.text)),
			"by halves": iotest.HalfReader(strings.NewReader(c.text)), "with the end": iotest.DataErrReader(strings.NewReader(c.text)),
		} {
			if got := splitFrom(t, in); !slices.Equal(got, c.want) {
				t.Errorf("%.40q %s: %.200v, want %.200v", c.text, name, got, c.want)
			}
		}
	}
}

func TestSplitFails(t *testing.T) {
	s := newSplitter(io.MultiReader(strings.NewReader("a: b\n---\nc"), iotest.ErrReader(iotest.ErrTimeout)), MaxFile)
	if c, err := s.next(); err != nil || c.text != "a: b\n" {
		t.Fatalf("%q, %v", c.text, err)
	}
	if _, err := s.next(); !errors.Is(err, iotest.ErrTimeout) {
		t.Errorf("%v, want the error of the stream", err)
	}
}
