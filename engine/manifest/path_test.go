// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// directory writes files and returns the directory.
func directory(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func namespace(name string) string {
	return "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: " + name + "\n"
}

func TestReadPath(t *testing.T) {
	dir := directory(t, map[string]string{
		"b.yaml": namespace("b"), "a.yml": namespace("a"),
		"c.json":       `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"s"}}`,
		".hidden.yaml": "[", "d.yaml~": "[", "notes.txt": "[", "sub/e.yaml": "[", "sub.yaml/f.yaml": "[",
	})
	if err := os.Symlink("b.yaml", filepath.Join(dir, "..b.yaml")); err != nil {
		t.Fatal(err)
	}
	docs, skipped, err := ReadPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"Namespace a @1", "Namespace b @1", "skipped v1 Secret s @1"}
	if diff := cmp.Diff(want, summary(docs, skipped)); diff != "" {
		t.Error(diff)
	}
	if got, want := docs[1].Origin(), filepath.Join(dir, "b.yaml")+":1"; got != want {
		t.Errorf("origin = %s, want %s", got, want)
	}
	docs, _, err = ReadPath(filepath.Join(dir, "b.yaml"))
	if err != nil || len(docs) != 1 {
		t.Errorf("one file: %v %v", docs, err)
	}
}

func TestReadPathRefuses(t *testing.T) {
	dir := directory(t, map[string]string{"a.yaml": namespace("x"), "b.yaml": "---\n" + namespace("x")})
	_, _, err := ReadPath(dir)
	want := dir + "/b.yaml:2: Namespace x: is already defined at " + dir + "/a.yaml:1"
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want %s", err, want)
	}
	if _, _, err := ReadPath(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing path: %v", err)
	}
	if err := os.Symlink("nowhere", filepath.Join(dir, "c.yaml")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ReadPath(dir); err == nil {
		t.Error("a link that points nowhere was passed over")
	}
}

func TestEmptyDirectoryHasNoDocuments(t *testing.T) {
	docs, skipped, err := ReadPath(t.TempDir())
	if docs != nil || skipped != nil || err != nil {
		t.Errorf("got %v %v %v", docs, skipped, err)
	}
}
