// SPDX-License-Identifier: Apache-2.0

package file

import (
	"os"
	"testing"
	"time"
)

func mustRead(t *testing.T, f *files) *snapshot {
	t.Helper()
	s, err := f.next()
	must(t, err)
	if s != nil {
		f.keep(s)
	}
	return s
}

// age sets a file's time back, as if it had been there for long.
func age(t *testing.T, name string) time.Time {
	t.Helper()
	old := time.Now().Add(-time.Hour).Truncate(time.Second)
	must(t, os.Chtimes(name, old, old))
	return old
}

// TestOnlyChangedFilesAreDecoded holds that a read costs what has changed.
func TestOnlyChangedFilesAreDecoded(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a", "b"} {
		write(t, dir+"/"+name+".yaml", nodes(name))
		age(t, dir+"/"+name+".yaml")
	}
	f := &files{path: dir}
	first := mustRead(t, f)
	if first == nil || len(first.read) != 2 {
		t.Fatalf("first read = %+v", first)
	}
	if s := mustRead(t, f); s != nil {
		t.Errorf("nothing changed, but %+v", s)
	}
	replace(t, dir+"/b.yaml", nodes("b", "c"))
	second := mustRead(t, f)
	if second == nil || second.read[dir+"/a.yaml"] != first.read[dir+"/a.yaml"] ||
		second.read[dir+"/b.yaml"] == first.read[dir+"/b.yaml"] {
		t.Errorf("second read = %+v, first %+v", second, first)
	}
}

// TestRacyFilesAreNotTrusted writes twice within one tick of the file system's clock, with the same size: only the
// contents tell.
func TestRacyFilesAreNotTrusted(t *testing.T) {
	name := t.TempDir() + "/a.yaml"
	stamp := time.Now()
	write(t, name, nodes("a"))
	must(t, os.Chtimes(name, stamp, stamp))
	f := &files{path: name}
	mustRead(t, f)
	write(t, name, nodes("b"))
	must(t, os.Chtimes(name, stamp, stamp))
	s := mustRead(t, f)
	if s == nil || len(s.keys) != 1 {
		t.Fatalf("the second write was not seen: %+v", s)
	}
	for key := range s.keys {
		if key.Name != "b" {
			t.Errorf("read %s, want b", key)
		}
	}
}

func TestDanglingLinkIsAnError(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/a.yaml", nodes("a"))
	f := &files{path: dir}
	mustRead(t, f)
	must(t, os.Symlink("nowhere", dir+"/b.yaml"))
	if s, err := f.next(); err == nil {
		t.Errorf("read %+v", s)
	}
}
