// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/evenkeel/evenkeel/engine/manifest"
)

// The faults of the control plane, against an agent that reads it. What it says shows that it has noticed.
func TestSourceFaults(t *testing.T) {
	t.Parallel()
	e := lab(t, true)
	info := e.Lab.Info()
	read := func(name string) []byte {
		text, err := os.ReadFile(filepath.Join(info.Manifests, name))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		return text
	}
	said := func() int { return bytes.Count(mustRead(t, info.Nodes[0].Agent.Log), []byte("\n")) }
	files := []string{"nodes.yaml", "pods.yaml", "poison.yaml", "storm.yaml"}
	for text, noticed := range map[string]string{
		"source-gone source file=nodes.yaml":                  "",
		"source-away source":                                  "no such file",
		"source-truncated source file=pods.yaml keep=0":       "is empty",
		"source-truncated source file=pods.yaml seed=3":       "pods.yaml",
		"source-poisoned source":                              "poison.yaml",
		"source-poisoned source poison=circular":              "poison.yaml",
		"source-poisoned source poison=huge":                  "poison.yaml",
		"source-poisoned source poison=random seed=4":         "poison.yaml",
		"source-poisoned source file=pods.yaml poison=binary": "pods.yaml",
		"source-storm source every=10ms seed=5":               "",
	} {
		t.Run(text, func(t *testing.T) {
			before := map[string][]byte{}
			for _, name := range files {
				before[name] = read(name)
			}
			lines := said()
			i := inject(t, e.mustBuild(t, text))
			if noticed != "" {
				eventually(t, "the agent says "+noticed, func() bool {
					all := bytes.Split(mustRead(t, info.Nodes[0].Agent.Log), []byte("\n"))
					return bytes.Contains(bytes.Join(all[lines:], nil), []byte(noticed))
				})
			}
			if s, is := i.Fault.(*Storm); is {
				eventually(t, "it has changed 20 times", func() bool { return s.changes.Load() >= 20 })
			}
			mustHeal(t, i)
			for _, name := range files {
				if got := read(name); !bytes.Equal(got, before[name]) {
					t.Errorf("%s was %d bytes, healed it is %d", name, len(before[name]), len(got))
				}
			}
			if left, _ := filepath.Glob(filepath.Join(info.Manifests, ".*.fault")); len(left) > 0 {
				t.Errorf("%q are left", left)
			}
			e.mustRun(t, "a")
		})
	}
}

func mustRead(t testing.TB, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// A file that somebody has put right is not the fault's any more.
func TestSourceInert(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.yaml")
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, h := injectQuiet(t, &Source{File: path, Harm: HarmTruncated, Keep: 0.5})
	if err := os.WriteFile(path, []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := h.heal(t.Context()); !errors.Is(err, ErrInert) {
		t.Errorf("healing: %v", err)
	}
	if got := mustRead(t, path); string(got) != "new" {
		t.Errorf("healing has replaced what somebody else wrote: %q", got)
	}
	nothing := &Source{File: path, Harm: HarmTruncated, Keep: 1}
	if err := nothing.Prepare(t.Context()); err == nil {
		t.Error("it would cut off nothing")
	}
}

// What a storm brings can be read, or it would be another fault; what poisons bring cannot.
func TestTextsOfFaults(t *testing.T) {
	s := &Storm{Services: 250, Endpoints: 250}
	text := s.documents(rand.New(rand.NewPCG(1, 1)))
	documents, skipped, err := manifest.Decode(bytes.NewReader(text), "storm.yaml")
	if err != nil || len(documents) != 500 || len(skipped) > 0 {
		t.Errorf("%d documents, %d skipped, %v", len(documents), len(skipped), err)
	}
	for name, poison := range poisons {
		dir := t.TempDir()
		path := filepath.Join(dir, name+".yaml")
		if err := os.WriteFile(path, poison(), 0o600); err != nil {
			t.Fatal(err)
		}
		documents, skipped, err := manifest.Decode(bytes.NewReader(poison()), path)
		if err == nil && (name != "twice" || len(documents) != 2) {
			t.Errorf("%s: %d documents, %d skipped and no error", name, len(documents), len(skipped))
		}
		if err != nil && !strings.Contains(err.Error(), name+".yaml") {
			t.Errorf("%s: the error does not name the file: %v", name, err)
		}
	}
}
