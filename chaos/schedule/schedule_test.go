// SPDX-License-Identifier: Apache-2.0

package schedule

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/evenkeel/evenkeel/netsim/fault"
)

func mustParse(t testing.TB, text string) Schedule {
	t.Helper()
	s, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestText(t *testing.T) {
	const text = `kill agent/a after=1ms + loss wire/a,b share=1% seed=7; kill-at agent/b call="bpf OBJ_PIN {pins}/super" seed=1`
	if got := mustParse(t, text).String(); got != text {
		t.Errorf("%s\n%s", text, got)
	}
	for _, wrong := range []string{"", "kill", "nothing agent/a", "kill agent/a;", "kill agent/a + ",
		"kill agent/a + kill agent/b + stop agent/c + stop agent/d"} {
		if s, err := Parse(wrong); err == nil {
			t.Errorf("%q is %v", wrong, s)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("kill agent/a + loss wire/a,b; stop agent/b")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Parse(s.String())
		if err != nil && !strings.ContainsAny(text, `";+`) {
			t.Fatalf("%q: %v", s, err)
		}
		if err == nil && again.String() != s.String() {
			t.Errorf("%q is %q", s, again)
		}
	})
}

func TestDraw(t *testing.T) {
	from := mustParse(t, "kill agent/a; stop agent/a; kill agent/b; stop agent/b; loss wire/a,b")
	var all []fault.Spec
	for _, round := range from {
		all = append(all, round...)
	}
	conflict := func(a, b fault.Spec) bool { return a.Target == b.Target }
	draw := func(seed uint64) Schedule { return Draw(rand.New(rand.NewPCG(seed, 0)), 50, all, conflict) }
	s := draw(1)
	if diff := cmp.Diff(s, draw(1)); diff != "" {
		t.Error(diff)
	}
	if s.String() == draw(2).String() {
		t.Error("another seed draws the same")
	}
	sizes := map[int]int{}
	for _, round := range s {
		sizes[len(round)]++
		for i, a := range round {
			for _, b := range round[:i] {
				if conflict(a, b) {
					t.Errorf("%v and %v at once", a, b)
				}
			}
		}
	}
	if len(sizes) != Most || sizes[0] > 0 {
		t.Errorf("rounds by size: %v", sizes)
	}
}

func TestShrink(t *testing.T) {
	s := mustParse(t, "kill agent/a + loss wire/a,b; stop agent/b; kill agent/a; term agent/a + stop agent/b + delay wire/a,b; "+
		"freeze agent/a; stop agent/a + kill agent/b")
	asked := 0
	needs := func(texts ...string) func(Schedule) (bool, error) {
		return func(s Schedule) (bool, error) {
			asked++
			for _, text := range texts {
				if !strings.Contains(s.String(), text) {
					return false, nil
				}
			}
			return true, nil
		}
	}
	for _, c := range []struct {
		want  string
		needs []string
	}{
		{"delay wire/a,b", []string{"delay"}},
		{"loss wire/a,b; freeze agent/a", []string{"loss", "freeze"}},
		{"term agent/a + stop agent/b", []string{"term agent/a + stop agent/b"}},
		{s.String(), []string{s.String()}},
	} {
		got, err := Shrink(s, needs(c.needs...))
		if err != nil || got.String() != c.want {
			t.Errorf("of what needs %q is left %q, %v", c.needs, got, err)
		}
	}
	if asked > 100 {
		t.Errorf("asked %d times", asked)
	}
	if got, err := Shrink(s, func(Schedule) (bool, error) { return false, ErrEnough }); err != nil || got.Size() != s.Size() {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := Shrink(s, func(Schedule) (bool, error) { return false, errors.New("x") }); err == nil {
		t.Error("an error is swallowed")
	}
}
