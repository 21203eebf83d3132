// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/plane"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("needs root")
	}
	t.Skip("needs root")
}

func TestExamine(t *testing.T) {
	needRoot(t)
	root, err := plane.CgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	// A cgroup of its own, so that what others make in the root meanwhile is not taken for a rest.
	cgroup, err := os.MkdirTemp(root, "evenkeel-doctor-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(cgroup)
	home, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	r, err := Examine(t.Context(), Options{Dir: filepath.Join(t.TempDir(), "evenkeel"), Cgroup: cgroup})
	if err != nil {
		t.Fatal(err)
	}
	if !r.OK || r.Kernel == "" {
		t.Errorf("kernel %s: %+v", r.Kernel, r)
	}
	for _, c := range r.Checks {
		switch {
		case strings.Contains(c.Without, "cannot be accelerated") || strings.HasPrefix(c.Detail, "1 programs"):
			t.Errorf("%+v", c)
		case c.Name == "" || c.Detail == "" || c.Without == "":
			t.Errorf("a check says too little: %+v", c)
		case c.Name == "pin directory":
			if c.OK || c.Needed || !strings.Contains(c.Detail, "such as /sys/fs/bpf") {
				t.Errorf("of a directory on another file system: %+v", c)
			}
		case c.Needed && !c.OK:
			t.Errorf("%+v", c)
		}
	}
	if entries, err := filepath.Glob(filepath.Join(cgroup, "evenkeel-*")); err != nil || len(entries) > 0 {
		t.Errorf("left in the cgroup: %v, %v", entries, err)
	}
	if now, err := os.Readlink("/proc/self/ns/net"); err != nil || now != home {
		t.Errorf("the process is in %s, was in %s: %v", now, home, err)
	}
}

// TestExamineWithoutCgroup: one lack must not hide the others.
func TestExamineWithoutCgroup(t *testing.T) {
	needRoot(t)
	r, err := Examine(t.Context(), Options{Dir: "/sys/fs/bpf/evenkeel", Cgroup: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	failed := map[string]bool{}
	for _, c := range r.Checks {
		if c.Needed && !c.OK {
			failed[c.Name] = true
		}
	}
	if r.OK || len(failed) != 2 || !failed["cgroup2"] || !failed["cgroup links"] {
		t.Errorf("failed %v", failed)
	}
}

func TestCheckRelease(t *testing.T) {
	for release, ok := range map[string]bool{
		"6.6.0": true, "6.5.13": false, "6.18.44-fc-v657": true, "5.15.0-91-generic": false, "7.0-rc1": true, "weird": false,
	} {
		if err := checkRelease(release); (err == nil) != ok {
			t.Errorf("%s: %v", release, err)
		}
	}
}
