// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// upgradeDocument has the table of which releases work together, between these two lines.
const (
	upgradeDocument = "../docs/UPGRADE.md"
	skewBegin       = "<!-- seen by e2e: begin -->\n"
	skewEnd         = "<!-- seen by e2e: end -->\n"
)

// pair is a part of one release that works on what another has installed.
type pair struct{ part, installed, version string }

// skew is what became of pairs: "yes", or what it needed, or what failed.
type skew map[pair]string

// parts, and what the table calls them.
var parts = []struct{ name, title string }{
	{"agent", "agent, on what V has installed"},
	{"commands", "commands, beside the agent of V"},
	{"plugin", "CNI plugin, beside the agent of V"},
}

// note adds an outcome. What was needed once is needed.
func (s skew) note(part, installed, version, outcome string) {
	at := pair{part, installed, version}
	if had, is := s[at]; !is || had == "yes" {
		s[at] = outcome
	}
}

// write puts the table into the document.
func (s skew) write(all []release) error {
	text, err := os.ReadFile(upgradeDocument)
	if err != nil {
		return err
	}
	head, rest, begins := bytes.Cut(text, []byte(skewBegin))
	_, tail, ends := bytes.Cut(rest, []byte(skewEnd))
	if !begins || !ends {
		return fmt.Errorf("%s has no table to write", upgradeDocument)
	}
	return os.WriteFile(upgradeDocument, slices.Concat(head, []byte(skewBegin+s.table(all)+skewEnd), tail), 0o644)
}

func (s skew) table(all []release) string {
	var b strings.Builder
	b.WriteString("| of the release | V |")
	for _, r := range all {
		b.WriteString(" " + r.version + " |")
	}
	b.WriteString("\n|---|---|" + strings.Repeat("---|", len(all)) + "\n")
	for _, part := range parts {
		for _, by := range all {
			b.WriteString("| " + part.title + " | " + by.version + " |")
			for _, r := range all {
				b.WriteString(" " + s[pair{part.name, by.version, r.version}] + " |")
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}

// readSkew is what the document says.
func readSkew() (skew, error) {
	text, err := os.ReadFile(upgradeDocument)
	if err != nil {
		return nil, err
	}
	_, rest, begins := strings.Cut(string(text), skewBegin)
	table, _, ends := strings.Cut(rest, skewEnd)
	rows := strings.Split(strings.TrimSpace(table), "\n")
	if !begins || !ends || len(rows) < 3 {
		return nil, fmt.Errorf("%s has no table of releases", upgradeDocument)
	}
	said := skew{}
	cells := func(row string) []string {
		all := strings.Split(strings.Trim(row, "|"), "|")
		for i := range all {
			all[i] = strings.TrimSpace(all[i])
		}
		return all
	}
	head := cells(rows[0])
	for _, row := range rows[2:] {
		row := cells(row)
		if len(row) != len(head) {
			return nil, fmt.Errorf("%s: row %q has %d cells of %d", upgradeDocument, row, len(row), len(head))
		}
		for _, part := range parts {
			for i := 2; part.title == row[0] && i < len(row); i++ {
				said[pair{part.name, row[1], head[i]}] = row[i]
			}
		}
	}
	return said, nil
}

// commandsWork has commands of one release read and change what another serves, and says which failed.
func commandsWork(ctx context.Context, l *lab, node string) string {
	GinkgoHelper()
	var failed []string
	try := func(name string, works bool, got result) {
		if !works {
			failed = append(failed, "`"+name+"`")
			AddReportEntry(l.binary+" "+name, fmt.Sprintf("%+v", got), ReportEntryVisibilityFailureOrVerbose)
		}
	}
	for _, read := range []struct{ line, shows string }{
		{"status", "connect4"}, {"dump services", "default/sticky"}, {"dump endpoints", "web-3"},
		{"dump workloads", "default/client"}, {"dump flows", "default/client"}, {"explain default/client web:80", "web-3"},
	} {
		args := strings.Fields(read.line)
		got := l.evenkeel(ctx, node, args...)
		try(strings.Join(args[:min(len(args), 2)], " "), got.code == 0 && strings.Contains(got.stdout, read.shows), got)
	}
	for command, shows := range map[string]string{"status": "serve", "history": "install", "verify": "in order"} {
		got := runIn(ctx, l.Node(node), nil, l.binary, "upgrade", command, "--pin-dir", l.pins(node))
		try("upgrade "+command, strings.Contains(got.stdout, shows), got) // verify exits 1 where an upgrade would be refused
	}
	got := l.enrol(ctx, "spare")
	try("enrol", got.code == 0 && l.workloads(ctx, node)["default/spare"].Enrolled &&
		draw(ctx, l.pod("spare"), 4, "10.96.0.10:7").endpoints["10.96.0.10:7"] == 0, got)
	got = l.withdraw(ctx, "spare")
	try("withdraw", got.code == 0 && !l.workloads(ctx, node)["default/spare"].Enrolled, got)
	if len(failed) == 0 {
		return "yes"
	}
	slices.Sort(failed)
	return "no: " + strings.Join(failed, ", ")
}

// pluginWorks has a runtime add, check and delete a pod through the plugin of one release on what another serves, and
// says what failed.
func pluginWorks(ctx context.Context, l *lab, node, dir string) string {
	GinkgoHelper()
	c := newChain(l, node, "net", bridge(subnet4), ours)
	c.use(dir)
	s := c.sandbox("meshed/added")
	defer s.end()
	if err := s.add(ctx); err != nil {
		return "no: ADD: " + err.Error()
	}
	works := l.workloads(ctx, node)["meshed/added"].Enrolled
	Eventually(ctx, func() string { return answerOf(ctx, s, "10.96.0.10:7") }).Should(Equal("ping"))
	checked := s.check(ctx)
	Expect(s.del(ctx)).To(Succeed())
	c.expectNothing(ctx)
	if !works || checked != nil {
		return fmt.Sprintf("no: CHECK: %v", checked)
	}
	return "yes"
}
