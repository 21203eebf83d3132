// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// TestDemoViewFits: a line that wraps takes two rows of the terminal, and erasing would leave debris behind.
func TestDemoViewFits(t *testing.T) {
	styles := regexp.MustCompile("\x1b\\[[0-9]*[mJA]")
	for _, columns := range []int{0, 20, 68, 69, 80, 100, 200} {
		var out bytes.Buffer
		v := &demoView{out: &out, width: func() int { return columns }, color: columns == 100, start: time.Now()}
		for _, name := range []string{"http, kept open", "http, new each time"} {
			f := &demoFlow{Name: name}
			for i := range uint64(100) {
				f.add(clientReport{Done: 100_000 + i, Failed: i / 50, Gap: 1234.5})
			}
			v.flows = append(v.flows, f)
		}
		v.draw()
		if drawn := out.String() != ""; drawn != (columns >= 69) {
			t.Errorf("%d columns: drawn: %v", columns, drawn)
		}
		if colored := strings.Contains(out.String(), "\x1b["); colored != (columns == 100) {
			t.Errorf("%d columns: colored: %v", columns, colored)
		}
		for line := range strings.Lines(styles.ReplaceAllString(out.String(), "")) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > columns {
				t.Errorf("%d columns: line of %d: %q", columns, n, line)
			}
		}
		if lines := strings.Count(out.String(), "\n"); lines != v.drawn {
			t.Errorf("%d columns: %d lines drawn, %d to be erased", columns, lines, v.drawn)
		}
	}
}
