// SPDX-License-Identifier: Apache-2.0

package file

import (
	"os"
	"testing"
	"time"
)

func mustWatch(t *testing.T, path string) *watch {
	t.Helper()
	w, err := openWatch()
	must(t, err)
	t.Cleanup(w.close)
	must(t, w.follow(path))
	return w
}

// mustWaitFor takes events until the watch waits for a file, or for none.
func (w *watch) mustWaitFor(t *testing.T, path string) {
	t.Helper()
	for late := time.After(patience); ; {
		if at, _, _ := w.rest(); at == path {
			return
		}
		select {
		case <-w.stirred:
		case <-late:
			at, wait, _ := w.rest()
			t.Fatalf("never waits for %q, but for %q, %v", path, at, wait)
		}
	}
}

// TestWatchWaitsForWriters holds that a file is not at rest between its first write and its close.
func TestWatchWaitsForWriters(t *testing.T) {
	dir := t.TempDir()
	name := dir + "/a.yaml"
	w := mustWatch(t, dir)
	out, err := os.Create(name)
	must(t, err)
	w.mustWaitFor(t, name)
	_, err = out.WriteString("apiVersion")
	must(t, err)
	<-w.stirred
	w.mustWaitFor(t, name)
	must(t, out.Close())
	w.mustWaitFor(t, "")

	must(t, os.Rename(name, name+"~"))
	w.mustWaitFor(t, name)
	write(t, name, "x")
	w.mustWaitFor(t, "")
	must(t, os.Remove(name))
	w.mustWaitFor(t, name)
	must(t, os.Symlink("nowhere", name))
	w.mustWaitFor(t, "")
}

func TestWatchIgnoresOtherFiles(t *testing.T) {
	dir := t.TempDir()
	w := mustWatch(t, dir+"/a.yaml")
	for _, name := range []string{"/b.yaml", "/a.yaml~", "/.a.yaml.swp", "/a.yaml.tmp"} {
		out, err := os.Create(dir + name)
		must(t, err)
		defer out.Close() // as long as it is open it would be waited for
	}
	write(t, dir+"/a.yaml", "x") // events come in order: those of the others are before
	<-w.stirred
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.settle.pending, dir+"/a.yaml")
	if len(w.settle.pending) != 0 {
		t.Errorf("waits for %v", w.settle.pending)
	}
}

func TestSettle(t *testing.T) {
	start := time.Unix(0, 0)
	at := func(d time.Duration) time.Time { return start.Add(d) }
	check := func(s *settle, now time.Time, path string, wait time.Duration) {
		t.Helper()
		if p, w := s.rest(now); p != path || w != wait {
			t.Errorf("at %v: waits %v for %q, want %v for %q", now.Sub(start), w, p, wait, path)
		}
	}
	var s settle
	check(&s, start, "", 0)
	s.await("a", at(0), time.Second)
	s.await("b", at(0), 2*time.Second)
	check(&s, at(0), "b", 2*time.Second)
	s.await("a", at(1500*time.Millisecond), time.Second)
	check(&s, at(1500*time.Millisecond), "a", time.Second)
	if !s.since.Equal(start) {
		t.Errorf("since = %v", s.since)
	}
	s.done("a")
	check(&s, at(1500*time.Millisecond), "b", 500*time.Millisecond)
	check(&s, at(2*time.Second), "", 0)
	if !s.since.IsZero() || len(s.pending) != 0 {
		t.Errorf("left over: %+v", s)
	}
	s.done("c")
	check(&s, at(2*time.Second), "", 0)
}
