// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
)

func TestParseCgroupMount(t *testing.T) {
	for text, want := range map[string]string{
		"": "",
		"cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n": "/sys/fs/cgroup/unified",
		"none /with\\040space cgroup2 rw 0 0\nnone /second cgroup2 rw 0 0":                         "/with space",
		"cgroup2 /not/this": "",
	} {
		if got, err := parseCgroupMount(strings.NewReader(text)); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", text, got, err, want)
		}
	}
}

func FuzzParseCgroupMount(f *testing.F) {
	f.Add("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0")
	f.Add("a b c\n\nx /y\\134040 cgroup2")
	f.Fuzz(func(t *testing.T, text string) {
		path, err := parseCgroupMount(strings.NewReader(text))
		if path != "" && (err != nil || !strings.Contains(text, "cgroup2")) {
			t.Errorf("%q, %v", path, err)
		}
	})
}

// A cgroup is found by its number as long as it is there.
func TestCgroupByID(t *testing.T) {
	b := newBed(t)
	dir, id, err := openCgroup(b.cgroup)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if name := cgroupName(id); name != b.cgroup {
		t.Errorf("cgroup %d is %s, not %s", id, name, b.cgroup)
	}
	if err := os.Remove(b.cgroup); err != nil {
		t.Fatal(err)
	}
	if found, err := cgroupByID(id); !errors.Is(err, fs.ErrNotExist) {
		if err == nil {
			found.Close()
		}
		t.Errorf("a cgroup that is gone: %v", err)
	}
}

// A process that does not see the hierarchy must not take a cgroup for gone: it would take its links for dead.
func TestHiddenHierarchyIsNoGoneCgroup(t *testing.T) {
	_, err := cgroupIn(t.TempDir()+"/hidden", 1)
	if !errors.Is(err, errNoHierarchy) || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v", err)
	}
}
