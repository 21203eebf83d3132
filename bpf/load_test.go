// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"os"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
)

// needRoot skips without privilege, but never where CI is set: there it is a failure.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("CI runs without root: nothing of the kernel side would be tested")
	}
	t.Skip("needs root")
}

func mustSpec(t *testing.T) *ebpf.CollectionSpec {
	t.Helper()
	spec, err := Spec()
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

// mustLoad loads the whole object as one generation.
func mustLoad(t *testing.T, generation uint16, replacements map[string]*ebpf.Map) *ebpf.Collection {
	t.Helper()
	spec := mustSpec(t)
	if err := Configure(spec, generation); err != nil {
		t.Fatal(err)
	}
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: replacements})
	if ve := (*ebpf.VerifierError)(nil); errors.As(err, &ve) {
		t.Fatalf("%+v", ve)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(coll.Close)
	return coll
}

func TestEveryProgramLoads(t *testing.T) {
	needRoot(t)
	spec, coll := mustSpec(t), mustLoad(t, 1, nil)
	for name := range spec.Programs {
		if coll.Programs[name] == nil {
			t.Errorf("program %s was not loaded", name)
		}
	}
}

// What is listed for the owner of the pinned state is what the object has: nothing is missing, nothing is left over.
func TestSpecIsCovered(t *testing.T) {
	spec := mustSpec(t)
	programs, maps := slices.Clone(Standalone()), slices.Concat(Frozen(), Private())
	for i, h := range Hooks() {
		if h.Name == "" {
			t.Fatalf("hook %d has no name", i)
		}
		for _, name := range []string{h.Entry, h.Program} {
			p := spec.Programs[name]
			if p == nil {
				t.Errorf("hook %s: no program %s", h.Name, name)
			} else if want := h.Attach; p.AttachType != want && want != ebpf.AttachSkMsgVerdict {
				t.Errorf("program %s: attach type %v, want %v", name, p.AttachType, want)
			}
		}
		if spec.Maps["calls_"+h.Name] == nil {
			t.Errorf("hook %s: no map calls_%s", h.Name, h.Name)
		}
		programs, maps = append(programs, h.Entry, h.Program), append(maps, "calls_"+h.Name)
	}
	for name := range spec.Programs {
		if !slices.Contains(programs, name) {
			t.Errorf("program %s: no hook and not standalone", name)
		}
	}
	for _, name := range maps {
		if spec.Maps[name] == nil {
			t.Errorf("map %s: not in the object", name)
		}
	}
	for name := range DefaultSizes().MaxEntries() {
		if spec.Maps[name] == nil {
			t.Errorf("map %s has a size but is not in the object", name)
		}
		if Flag(name) == "" {
			t.Errorf("map %s has a size but no flag sets it", name)
		}
	}
	for name := range spec.Maps {
		if len(name) > 15 {
			t.Errorf("map %s: the kernel cuts names at 15 characters", name)
		}
	}
}
