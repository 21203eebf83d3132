// SPDX-License-Identifier: Apache-2.0

package file

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/engine"
	"github.com/evenkeel/evenkeel/engine/manifest"
	"github.com/evenkeel/evenkeel/engine/source/cases"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestFirstReadNamesAllKinds(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/a.yaml", nodes("a")+`---
apiVersion: apps/v1
kind: Deployment
metadata: {name: d}
---
apiVersion: v1
kind: Service
metadata: {name: s, annotations: {evenkeel.io/consistent-hash: x}}
spec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}
`)
	f := feed(t, Options{Path: dir})
	f.mustHave("a")
	want := []engine.Kind{engine.Services, engine.Slices, engine.Nodes, engine.Workloads, engine.Namespaces}
	if diff := cmp.Diff(want, f.changes[0].Synced); diff != "" {
		t.Error(diff)
	}
	st := f.source.Status()
	if st.Path != dir || time.Since(st.Read) > patience ||
		st.Objects[manifest.KindNode] != 1 || st.Objects[manifest.KindService] != 1 ||
		st.Skipped["apps/v1 Deployment"] != 1 || len(st.Warnings) != 1 {
		t.Errorf("status = %+v", st)
	}
	if want := dir + "/a.yaml:11: Service default/s: annotation "; !strings.HasPrefix(st.Warnings[0].String(), want) {
		t.Errorf("warning = %s, want %s", st.Warnings[0], want)
	}
	replace(t, dir+"/b.yaml", nodes("b"))
	f.mustHave("a b")
	if f.changes[1].Synced != nil {
		t.Error("a later change names kinds as synced")
	}
	if n := strings.Count(f.logged(), "level=WARN"); n != 1 {
		t.Errorf("the warning was logged %d times", n)
	}
}

// TestCases runs the table of cases through files.
func TestCases(t *testing.T) {
	all, err := cases.All()
	must(t, err)
	for _, c := range all {
		t.Run(c.Name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir+"/"+c.Name+".yaml", c.Text)
			f := feed(t, Options{Path: dir})
			f.mustBecome("synced", func() bool { return f.source.Status().Synced })
			f.mu.Lock()
			defer f.mu.Unlock()
			for _, w := range f.source.Status().Warnings {
				f.model.Warnings = append(f.model.Warnings, fmt.Sprintf("%s: %s", w.Key, w.Text))
			}
			if diff := cmp.Diff(c.Want, f.model.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestEmptyDirectoryIsSynced(t *testing.T) {
	f := feed(t, Options{Path: t.TempDir()})
	f.mustHave("")
	if f.taken() != 1 || len(f.changes[0].Synced) != 5 {
		t.Errorf("changes = %+v", f.changes)
	}
}

func TestChangesOfOneFile(t *testing.T) {
	name := t.TempDir() + "/nodes.yaml"
	write(t, name, nodes("a", "b"))
	f := feed(t, Options{Path: name})
	f.mustHave("a b")
	replace(t, name, nodes("b", "c"))
	f.mustHave("b c")
	write(t, name, nodes("d")) // in place
	f.mustHave("d")
	write(t, filepath.Dir(name)+"/other.yaml", nodes("x"))
	replace(t, name, nodes("e"))
	f.mustHave("e")
}

func TestFileThatGoesAndComesBack(t *testing.T) {
	name := t.TempDir() + "/nodes.yaml"
	write(t, name, nodes("a"))
	f := feed(t, Options{Path: name})
	f.mustHave("a")
	must(t, os.Remove(name))
	f.mustFail("no such file")
	write(t, name, nodes("b"))
	f.mustHave("b")
	must(t, os.Truncate(name, 0))
	f.mustFail("nodes.yaml: is empty")
	write(t, name, "# nothing\n")
	f.mustFail("nodes.yaml: has no objects")
	replace(t, name, nodes("b"))
	f.mustHave("b")
	if got := f.deletions(); !cmp.Equal(got, []string{"a"}) {
		t.Errorf("deleted %v, want only what the second file did not have", got)
	}
}

func TestPathThatAppearsLater(t *testing.T) {
	dir := t.TempDir()
	f := feed(t, Options{Path: dir + "/etc/evenkeel/conf"})
	f.mustFail("no such file")
	if st := f.source.Status(); st.Synced || f.taken() != 0 || !st.Read.IsZero() {
		t.Fatalf("status = %+v", st)
	}
	must(t, os.MkdirAll(dir+"/etc", 0o755))
	must(t, os.MkdirAll(dir+"/etc/evenkeel/new", 0o755))
	write(t, dir+"/etc/evenkeel/new/a.yaml", nodes("a"))
	must(t, os.Rename(dir+"/etc/evenkeel/new", dir+"/etc/evenkeel/conf"))
	f.mustHave("a")
	replace(t, dir+"/etc/evenkeel/conf/a.yaml", nodes("b"))
	f.mustHave("b")
}

func TestDirectory(t *testing.T) {
	dir := t.TempDir() + "/conf"
	write(t, dir+"/a.yaml", nodes("a"))
	write(t, dir+"/b.json", `{"apiVersion":"v1","kind":"Node","metadata":{"name":"b"}}`)
	f := feed(t, Options{Path: dir})
	f.mustHave("a b")

	must(t, os.Remove(dir+"/a.yaml"))
	f.mustHave("b")
	write(t, dir+"/.hidden.yaml", "[")
	write(t, dir+"/c.yaml", nodes("c"))
	f.mustHave("b c")
	must(t, os.Truncate(dir+"/c.yaml", 0))
	f.mustFail("c.yaml: is empty")
	must(t, os.Remove(dir+"/c.yaml"))
	f.mustHave("b")

	must(t, os.Rename(dir, dir+".old"))
	f.mustFail("no such file")
	write(t, dir+".new/d.yaml", nodes("b", "d"))
	must(t, os.Rename(dir+".new", dir))
	f.mustHave("b d")
	must(t, os.Remove(dir+"/d.yaml"))
	f.mustHave("")

	must(t, os.RemoveAll(dir))
	f.mustFail("no such file")
	write(t, dir+"/e.yaml", nodes("e"))
	f.mustHave("e")
}

// TestMalformedChangesNothing holds that one bad document keeps the whole source as it was, and is told once.
func TestMalformedChangesNothing(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/a.yaml", nodes("a"))
	write(t, dir+"/b.yaml", nodes("b"))
	f := feed(t, Options{Path: dir, Period: 5 * time.Millisecond})
	f.mustHave("a b")
	replace(t, dir+"/b.yaml", nodes("b")+"---\napiVersion: v1\nkind: Node\nmetadata:\n  nam: x\n")
	f.mustFail("b.yaml:10: Node: metadata.nam: unknown field")
	replace(t, dir+"/a.yaml", nodes("a2"))
	before := f.source.Status().Read
	f.mustFail("b.yaml:10: ")
	var refused *manifest.Error
	st := f.source.Status()
	if !errors.As(st.Err, &refused) || refused.Line != 10 || st.Since.IsZero() || !st.Read.Equal(before) {
		t.Errorf("status = %+v", st)
	}
	replace(t, dir+"/b.yaml", nodes("a2"))
	f.mustFail("Node a2: is already defined at " + dir + "/a.yaml:2")
	replace(t, dir+"/b.yaml", nodes("b2"))
	f.mustHave("a2 b2")
	if n := strings.Count(f.logged(), "metadata.nam"); n != 1 {
		t.Errorf("the error was logged %d times", n)
	}
	if n := strings.Count(f.logged(), "good again"); n != 1 {
		t.Errorf("that all is good again was logged %d times", n)
	}
}

// TestConfigMap is the way the kubelet mounts and updates one: as a directory, and as one file in it.
func TestConfigMap(t *testing.T) {
	for _, path := range []string{"", "/a.yaml"} {
		t.Run("path"+path, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir+"/..v1/a.yaml", nodes("a"))
			write(t, dir+"/..v1/b.yaml", nodes("b"))
			must(t, os.Symlink("..v1", dir+"/..data"))
			must(t, os.Symlink("..data/a.yaml", dir+"/a.yaml"))
			must(t, os.Symlink("..data/b.yaml", dir+"/b.yaml"))
			f := feed(t, Options{Path: dir + path})
			first, second, third := "a b", "a2 b2", "c"
			if path != "" {
				first, second, third = "a", "a2", "c"
			}
			f.mustHave(first)
			write(t, dir+"/..v2/a.yaml", nodes("a2"))
			write(t, dir+"/..v2/b.yaml", nodes("b2"))
			relink(t, "..v2", dir+"/..data")
			f.mustHave(second)
			must(t, os.RemoveAll(dir+"/..v1"))
			write(t, dir+"/..v3/a.yaml", nodes("c")) // without b.yaml: the kubelet removes that link afterwards
			relink(t, "..v3", dir+"/..data")
			must(t, os.Remove(dir+"/b.yaml"))
			f.mustHave(third)
		})
	}
}

// TestLinksOnTheWay swaps a link in the middle of the path.
func TestLinksOnTheWay(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/releases/1/conf/a.yaml", nodes("a"))
	write(t, dir+"/releases/2/conf/a.yaml", nodes("b"))
	must(t, os.Symlink("releases/1", dir+"/current"))
	must(t, os.Symlink(dir+"/current", dir+"/link"))
	f := feed(t, Options{Path: dir + "/link/conf"})
	f.mustHave("a")
	relink(t, "releases/2", dir+"/current")
	f.mustHave("b")
	replace(t, dir+"/releases/2/conf/a.yaml", nodes("c"))
	f.mustHave("c")
}

// TestEditors replays what editors do to a file. None of it may look like a deletion.
func TestEditors(t *testing.T) {
	saves := map[string]func(t *testing.T, name, text string){
		"rename over": func(t *testing.T, name, text string) { replace(t, name, text) },
		"truncate and write in pieces": func(t *testing.T, name, text string) {
			out, err := os.OpenFile(name, os.O_WRONLY|os.O_TRUNC, 0)
			must(t, err)
			for half := text; half != ""; half = half[(len(half)+1)/2:] {
				_, err = out.WriteString(half[:(len(half)+1)/2])
				must(t, err)
			}
			must(t, out.Close())
		},
		"move away, write anew": func(t *testing.T, name, text string) {
			must(t, os.Rename(name, name+"~"))
			write(t, name, text)
		},
		"remove, write anew": func(t *testing.T, name, text string) {
			must(t, os.Remove(name))
			write(t, name, text)
		},
		"hard link as a backup, then rename over": func(t *testing.T, name, text string) {
			os.Remove(name + "~")
			must(t, os.Link(name, name+"~"))
			replace(t, name, text)
		},
	}
	for how, save := range saves {
		t.Run(how, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir+"/nodes.yaml", nodes("a", "b"))
			f := feed(t, Options{Path: dir})
			f.mustHave("a b")
			for _, added := range []string{"c", "d", "e"} {
				save(t, dir+"/nodes.yaml", nodes("a", "b", added))
				f.mustHave("a b " + added)
			}
			if got := f.deletions(); !cmp.Equal(got, []string{"c", "d"}) {
				t.Errorf("deleted %v, want c, then d", got)
			}
		})
	}
}

// TestRefusedChangeIsOfferedAgain holds that nothing is lost while the engine cannot take it, and that it is not lost
// behind a file that was broken meanwhile either.
func TestRefusedChangeIsOfferedAgain(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/a.yaml", nodes("a"))
	f := feed(t, Options{Path: dir})
	f.mustHave("a")
	f.mu.Lock()
	f.refuse = errors.New("no room")
	f.mu.Unlock()
	replace(t, dir+"/a.yaml", nodes("b"))
	f.mustFail("apply changes of " + dir + ": no room")
	replace(t, dir+"/b.yaml", "[")
	f.mustFail("b.yaml:1: invalid YAML")
	f.mu.Lock()
	f.refuse = nil
	f.mu.Unlock()
	f.mustBecome("nodes b", func() bool { return f.has() == "b" })
	f.mustFail("b.yaml:1: invalid YAML")
	must(t, os.Remove(dir+"/b.yaml"))
	f.mustHave("b")
}

// TestPeriodFindsWhatNoEventTold writes through a hard link from a directory that nobody watches.
func TestPeriodFindsWhatNoEventTold(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	write(t, elsewhere+"/a", nodes("a"))
	must(t, os.Link(elsewhere+"/a", dir+"/a.yaml"))
	f := feed(t, Options{Path: dir, Period: 10 * time.Millisecond})
	f.mustHave("a")
	write(t, elsewhere+"/a", nodes("bb"))
	f.mustHave("bb")
}

func TestPipeIsRefused(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/a.yaml", nodes("a"))
	f := feed(t, Options{Path: dir})
	f.mustHave("a")
	must(t, unix.Mkfifo(dir+"/b.yaml", 0o600))
	f.mustFail("b.yaml: is not a regular file")
}

func TestRunNeedsAPath(t *testing.T) {
	if err := New(Options{}).Run(context.Background(), nil); err == nil {
		t.Error("Run without a path returned no error")
	}
}

// BenchmarkRename is the time from the rename of a small file into place until the engine has taken the change.
func BenchmarkRename(b *testing.B) {
	dir := b.TempDir()
	write(b, dir+"/a.yaml", nodes("start"))
	applied := make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() {
		ended <- New(Options{Path: dir}).Run(ctx, func(context.Context, engine.Change) error {
			applied <- struct{}{}
			return nil
		})
	}()
	<-applied
	texts := []string{nodes("a"), nodes("b")}
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		write(b, dir+"/a.yaml.tmp", texts[i%2])
		b.StartTimer()
		must(b, os.Rename(dir+"/a.yaml.tmp", dir+"/a.yaml"))
		<-applied
	}
	cancel()
	must(b, <-ended)
}
