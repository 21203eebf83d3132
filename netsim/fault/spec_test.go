// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseSpec(t *testing.T) {
	for text, want := range map[string]Spec{
		"stop agent/a": {Fault: "stop", Target: "agent/a"},
		"  kill\tagent/a after=0..50ms seed=7 ": {Fault: "kill", Target: "agent/a", Seed: 7,
			With: map[string]string{"after": "0..50ms"}},
		`kill-at agent/a call="bpf OBJ_PIN {pins}/\"x\"" when=after`: {Fault: "kill-at", Target: "agent/a",
			With: map[string]string{"call": `bpf OBJ_PIN {pins}/"x"`, "when": "after"}},
		`x y z=""`: {Fault: "x", Target: "y", With: map[string]string{"z": ""}},
	} {
		got, err := ParseSpec(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s:\n%s", text, diff)
		}
	}
	for _, text := range []string{"", "stop", "stop agent/a after", `stop agent/a call="x`, "stop agent/a seed=x",
		"stop agent/a =x", "stop agent/a a=1 a=2", `stop agent/a a="x"y`} {
		if s, err := ParseSpec(text); err == nil {
			t.Errorf("%q is read as %v", text, s)
		}
	}
}

func FuzzParseSpec(f *testing.F) {
	f.Add("kill agent/a after=0..50ms seed=7")
	f.Add(`kill-at agent/a call="bpf OBJ_PIN {pins}/\"x\"" when=after`)
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSpec(text)
		if err != nil {
			return
		}
		again, err := ParseSpec(s.String())
		if err != nil {
			t.Fatalf("%q is written as %q: %v", text, s, err)
		}
		if diff := cmp.Diff(s, again); diff != "" {
			t.Errorf("%q is written as %q:\n%s", text, s, diff)
		}
	})
}

// A seed draws the same values each time, another one others.
func TestSeed(t *testing.T) {
	e := lab(t, false)
	build := func(text string) string {
		m, err := json.Marshal(e.mustBuild(t, text))
		if err != nil {
			t.Fatal(err)
		}
		return string(m)
	}
	const text = "kill agent/a after=0s..1h seed="
	first := build(text + "1")
	if again := build(text + "1"); again != first {
		t.Errorf("one seed, two faults:\n%s\n%s", first, again)
	}
	if build(text+"2") == first {
		t.Error("two seeds, one fault")
	}
}

func TestBuildRefuses(t *testing.T) {
	e := lab(t, false)
	for _, text := range []string{"nothing agent/a", "stop pod/client", "stop agent/c", "stop a", "kill agent/a before=1s",
		"kill agent/a after=soon", "kill agent/a after=2s..1s", "kill agent/a after=-1s", "kill-at agent/a number=0",
		"kill-at agent/a number=1 when=during", "crash-loop agent/a within=0s"} {
		s, err := ParseSpec(text)
		if err != nil {
			t.Fatal(err)
		}
		if f, err := e.Build(s); err == nil {
			t.Errorf("%q makes %v", text, f)
		} else {
			t.Logf("%q: %v", text, err)
		}
	}
	_, err := Lookup("nothing")
	if !errors.Is(err, ErrUnknown) {
		t.Errorf("lookup: %v", err)
	}
}

// Every kind says what it is, can be found, and comes back from JSON as what it was.
func TestKinds(t *testing.T) {
	for _, k := range Kinds() {
		if k.Name == "" || k.Group == "" || k.Summary == "" || targetForm[k.Target] == "" {
			t.Errorf("kind %+v lacks something", k)
		}
		found, err := Lookup(k.Name)
		if err != nil || found.Summary != k.Summary {
			t.Errorf("%s is not found, or another: %v", k.Name, err)
		}
		if _, err := kindOf(k.zero()); err != nil {
			t.Error(err)
		}
	}
}
