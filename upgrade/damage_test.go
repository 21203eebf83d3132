// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
)

// pins lists the paths of everything pinned in a tree.
func pins(t *testing.T, dir string) []string {
	t.Helper()
	var paths []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			name, _ := filepath.Rel(dir, path)
			paths = append(paths, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// Every pin in turn is removed. The next owner gives the object its name again, fills slots that were lost with a prog
// array, loads what nothing held any more. A map that no program uses is gone for good, and made anew.
func TestEveryLostPinIsRestored(t *testing.T) {
	b := newBed(t)
	b.open(t, _TinyBytes).Close()
	want := inventory(t, b.dir)
	for _, path := range pins(t, b.dir) {
		t.Run(path, func(t *testing.T) {
			before := snapshot(t, b.dir)
			if err := os.Remove(filepath.Join(b.dir, path)); err != nil {
				t.Fatal(err)
			}
			eventually(t, "inspect sees it", func() bool {
				where := path
				if strings.HasPrefix(path, "gen/1/progs/") {
					where = "gen/1/progs" // all that a slot tells
				}
				return path == "maps/tiny_notes" || path == "gen/1/progs/tiny_rule" ||
					strings.Contains(fmt.Sprint(b.inspect(t).Damages), where)
			})
			s, err := Open(t.Context(), tinyPlane(_TinyBytes), b.options())
			if err != nil {
				t.Fatalf("it was not restored: %v", err)
			}
			s.Close()
			if diff := cmp.Diff(want, inventory(t, b.dir)); diff != "" {
				t.Errorf("inventory (-before +restored):\n%s", diff)
			}
			lost := path == "gen/1/progs/tiny_rule" || path == "maps/tiny_notes" || path == "gen/1/release" || // held by nothing but its name
				strings.HasPrefix(path, "links/") || path == "entries/lookup" || path == "entries/tcx"
			if !lost {
				if diff := cmp.Diff(before, snapshot(t, b.dir)); diff != "" {
					t.Errorf("it is not the object that it was (-before +restored):\n%s", diff)
				}
			}
			b.sound(t)
		})
	}
}

// All the pins of each directory at once, and directories as a whole.
func TestLostDirectoriesAreRestored(t *testing.T) {
	b := newBed(t)
	b.open(t, _TinyBytes).Close()
	want := inventory(t, b.dir)
	for _, dir := range []string{
		"writers", "links", "links/pods", "entries", "calls", "gen/1/maps", "gen/1/progs", "gen", "super", "maps",
	} {
		t.Run(dir, func(t *testing.T) {
			if err := os.RemoveAll(filepath.Join(b.dir, dir)); err != nil {
				t.Fatal(err)
			}
			b.open(t, _TinyBytes).Close()
			if diff := cmp.Diff(want, inventory(t, b.dir)); diff != "" {
				t.Errorf("inventory (-before +restored):\n%s", diff)
			}
			b.sound(t)
		})
	}
}

// A pin lies where a directory should. The next owner, and whoever looks before, is told its path, what it is and what to
// do; uninstall removes everything but it; and without it all is restored.
func TestPinWhereADirectoryShouldBe(t *testing.T) {
	b := newBed(t)
	b.open(t, _TinyBytes).Close()
	want := inventory(t, b.dir)
	for _, dir := range []string{
		"writers", "links", "links/pods", "entries", "calls", "gen/1/maps", "gen/1/progs", "gen/1", "gen", "maps",
	} {
		t.Run(dir, func(t *testing.T) {
			full := filepath.Join(b.dir, dir)
			put := func() {
				if err := os.RemoveAll(full); err != nil {
					t.Fatal(err)
				}
				putMap(t, full, &ebpf.MapSpec{Name: "intruder", Type: ebpf.Queue, ValueSize: 8, MaxEntries: 1})
			}
			put()
			s, err := Open(t.Context(), tinyPlane(_TinyBytes), b.options())
			if err == nil {
				s.Close()
			}
			var damage *DamageError
			says := dir + ": it is a pin, not a directory; " + evict
			if !errors.As(err, &damage) || !strings.Contains(err.Error(), says) {
				t.Errorf("the next owner says: %v\nwant: %s", err, says)
			}
			w, err := OpenWriter(t.Context(), b.dir) // as a pod's enrolment does
			if err == nil {
				w.Close()
			}
			if dir == pathWriters && !errors.As(err, &damage) {
				t.Errorf("a writer is told: %v", err)
			}
			told := b.inspect(t).Damages
			if !slices.Contains(told, Damage{dir, "it is a pin, not a directory", evict}) {
				t.Errorf("inspect says %v", told)
			}
			if slices.ContainsFunc(told, func(d Damage) bool { return d.Path == dir && d.What == "it is gone" }) {
				t.Errorf("inspect says that it is gone as well: %v", told)
			}
			if err := os.Remove(full); err != nil {
				t.Fatal(err)
			}
			b.open(t, _TinyBytes).Close()
			if diff := cmp.Diff(want, inventory(t, b.dir)); diff != "" {
				t.Errorf("inventory (-before +restored):\n%s", diff)
			}
			b.sound(t)

			put()
			var foreign *ForeignError
			if err := Uninstall(t.Context(), b.options()); !errors.As(err, &foreign) || !slices.Equal(foreign.Paths, []string{dir}) {
				t.Errorf("uninstall: %v", err)
			}
			if left := pins(t, b.dir); !slices.Equal(left, []string{dir}) {
				t.Errorf("left are %q", left)
			}
			if err := os.Remove(full); err != nil {
				t.Fatal(err)
			}
			uninstall(t, b)
			b.open(t, _TinyBytes).Close()
		})
	}
}
