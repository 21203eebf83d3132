// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/report"
	"github.com/evenkeel/evenkeel/cmd/internal/command"
)

// show writes a document: as JSON, or as people read it.
func show(c *cobra.Command, o command.Output, w io.Writer, document any, people func(*table)) error {
	if err := o.Check(c); err != nil {
		return err
	}
	if o == "json" {
		return command.JSON(w, report.Whole(document))
	}
	t := &table{}
	people(t)
	if _, err := w.Write(t.text()); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// table is text in aligned columns, in blocks that align each by themselves.
type table struct {
	out   bytes.Buffer
	block [][]string
}

// pair adds a line of a name and its value.
func (t *table) pair(name, value string) { t.row(name, value) }

// row adds a line to the block.
func (t *table) row(cells ...string) {
	for i, c := range cells {
		cells[i] = printable(c)
	}
	t.block = append(t.block, cells)
}

// line ends the block and adds a line that is not part of any.
func (t *table) line(format string, args ...any) {
	t.flush()
	fmt.Fprintln(&t.out, printable(fmt.Sprintf(format, args...)))
}

// head ends the block and begins another, after an empty line, with the names of its columns.
func (t *table) head(cells ...string) {
	t.flush()
	if t.out.Len() > 0 {
		t.out.WriteByte('\n')
	}
	t.block = append(t.block, cells)
}

// flush writes the block. A cell that is empty is shown as a dash, so that columns can be told apart.
func (t *table) flush() {
	var aligned bytes.Buffer
	w := tabwriter.NewWriter(&aligned, 0, 0, 2, ' ', 0)
	for _, cells := range t.block {
		for i, c := range cells {
			if c == "" {
				cells[i] = "-"
			}
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	w.Flush() // a buffer does not fail
	for line := range strings.Lines(aligned.String()) {
		t.out.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	t.block = nil
}

func (t *table) text() []byte {
	t.flush()
	return t.out.Bytes()
}

// printable keeps what comes from manifests and other programs from steering a terminal or breaking a line.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}
