// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// docs/CHAOS.md has every fault, with its target and parameters, and no other.
func TestDocsHaveEveryFault(t *testing.T) {
	type row struct{ target, params string }
	rows := map[string]row{}
	_, text, _ := strings.Cut(string(mustRead(t, "../../docs/CHAOS.md")), "## What can be broken\n")
	text, _, _ = strings.Cut(text, "\n## ")
	for line := range strings.Lines(text) {
		cells := strings.Split(line, "|")
		if len(cells) < 4 || !strings.Contains(cells[1], "`") {
			continue
		}
		for name := range strings.SplitSeq(cells[1], ",") {
			rows[strings.Trim(name, " `")] = row{cells[2], cells[3]}
		}
	}
	var known []string
	for _, k := range Kinds() {
		known = append(known, k.Name)
		r, there := rows[k.Name]
		if !there {
			t.Errorf("docs/CHAOS.md has no fault %s", k.Name)
			continue
		}
		if !strings.Contains(r.target, k.Target) {
			t.Errorf("docs/CHAOS.md: target of %s is%sand should be %s", k.Name, r.target, k.Target)
		}
		if strings.Contains(r.params, "as kill-at") || strings.Contains(r.params, "the same twice") {
			continue
		}
		for _, p := range k.Params {
			if !strings.Contains(r.params, p.Name) {
				t.Errorf("docs/CHAOS.md: %s has no parameter %s", k.Name, p.Name)
			}
		}
	}
	for name := range rows {
		if !slices.Contains(known, name) {
			t.Errorf("docs/CHAOS.md has fault %s, which does not exist", name)
		}
	}
}

// Every fault is injected by name in some test.
func TestEveryFaultIsTested(t *testing.T) {
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, name := range files {
		all.Write(mustRead(t, name))
	}
	for _, k := range Kinds() {
		if !strings.Contains(all.String(), `"`+k.Name+" "+k.Target) && !strings.Contains(all.String(), "`"+k.Name+" "+k.Target) {
			t.Errorf("no test injects %s", k.Name)
		}
	}
}
