// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// What a writer left that was killed goes with the next write; what somebody still writes, and what is of another file,
// stays.
func TestReplaceRemovesWhatWasLeft(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "decisions.json")
	put := func(name string) string {
		t.Helper()
		full := filepath.Join(dir, name)
		if err := os.WriteFile(full, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
		return full
	}
	put(".decisions.json.1.new")
	put(".decisions.json.2.new")
	put(".other.json.1.new")
	put("decisions.json.1.new")
	busy, err := os.Open(put(".decisions.json.3.new"))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(busy.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", filepath.Join(dir, ".decisions.json.4.new")); err != nil {
		t.Fatal(err)
	}
	if err := Replace(path, []byte("whole"), 0o640); err != nil {
		t.Fatal(err)
	}
	want := []string{".decisions.json.3.new", ".decisions.json.4.new", ".other.json.1.new", "decisions.json", "decisions.json.1.new"}
	if got := names(t, dir); !slices.Equal(got, want) {
		t.Errorf("there are %q, want %q", got, want)
	}
	busy.Close() // its writer is dead now
	if err := Withdraw(filepath.Join(dir, "pins"), dir); err == nil {
		t.Error("a copy that is no JSON was accepted")
	}
	if got := names(t, dir); slices.Contains(got, ".decisions.json.3.new") {
		t.Errorf("there are %q", got)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("%v, %v", info, err)
	}
}

// Writers at the same time do not take each other's files away, and what they write can be executed at once.
func TestReplaceTogether(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "plugin")
	program, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for n := range 50 {
				text := append(bytes.Clone(program), strconv.Itoa(i)...)
				if err := Replace(path, text, 0o755); err != nil {
					t.Errorf("writer %d, %d: %v", i, n, err)
				}
			}
		})
	}
	all.Wait()
	if out, err := exec.Command(path).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if got := names(t, dir); !slices.Equal(got, []string{"plugin"}) {
		t.Errorf("there are %q", got)
	}
}
