// SPDX-License-Identifier: Apache-2.0

package source

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/evenkeel/evenkeel/engine/source/cases"
	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files of the cases instead of comparing them")

func mustCases(t *testing.T) []cases.Case {
	t.Helper()
	all, err := cases.All()
	if err != nil || len(all) == 0 {
		t.Fatal(len(all), err)
	}
	return all
}

func warnings(s *State) []string {
	var out []string
	for _, w := range s.Warnings() {
		out = append(out, fmt.Sprintf("%s: %s", w.Key, w.Text))
	}
	return out
}

func TestCases(t *testing.T) {
	for _, c := range mustCases(t) {
		t.Run(c.Name, func(t *testing.T) {
			state := New(Options{Derive: c.Derived})
			for _, d := range c.Documents {
				state.Upsert(d.Object, d.Origin())
			}
			var model cases.Model
			model.Apply(state.Change())
			model.Warnings = warnings(state)
			got := model.String()
			if *update {
				if err := os.WriteFile("cases/testdata/"+c.Name+".golden", []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(c.Want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestCasesOneByOne applies the same documents as one change each, backwards: references then come before what they
// refer to, and the end must be the same.
func TestCasesOneByOne(t *testing.T) {
	for _, c := range mustCases(t) {
		t.Run(c.Name, func(t *testing.T) {
			state := New(Options{Derive: c.Derived})
			var model cases.Model
			for i := len(c.Documents) - 1; i >= 0; i-- {
				state.Upsert(c.Documents[i].Object, c.Documents[i].Origin())
				model.Apply(state.Change())
				state.Commit()
			}
			model.Warnings = warnings(state)
			if diff := cmp.Diff(c.Want, model.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
}
