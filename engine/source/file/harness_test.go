// SPDX-License-Identifier: Apache-2.0

package file

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/engine"
	"github.com/evenkeel/evenkeel/engine/source/cases"
)

// patience is how long a test waits for what must come. It is never waited for in full when the code is right.
const patience = 20 * time.Second

// fed is an engine that a running Source feeds. It keeps every change that it took.
type fed struct {
	t      *testing.T
	source *Source

	mu      sync.Mutex
	refuse  error
	offered int
	model   cases.Model
	changes []engine.Change
	log     bytes.Buffer
}

// feed runs a Source until the test ends.
func feed(t *testing.T, o Options) *fed {
	t.Helper()
	f := &fed{t: t}
	o.Log = slog.New(slog.NewTextHandler(writer{f}, nil))
	f.source = New(o)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- f.source.Run(ctx, f.apply) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error("Run:", err)
		}
		if t.Failed() {
			t.Log(f.logged())
		}
	})
	return f
}

type writer struct{ *fed }

func (w writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(p)
}

func (f *fed) logged() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.log.String()
}

func (f *fed) apply(_ context.Context, c engine.Change) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.offered++
	if f.refuse != nil {
		return f.refuse
	}
	f.changes = append(f.changes, c)
	f.model.Apply(c)
	return nil
}

// has returns the names of the nodes that the engine knows, "a b".
func (f *fed) has() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var names []string
	for name := range f.model.Nodes {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

func (f *fed) deletions() (names []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.changes {
		for name, n := range c.Nodes {
			if n == nil {
				names = append(names, name)
			}
		}
	}
	return names
}

func (f *fed) taken() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.changes)
}

func (f *fed) mustHave(names string) {
	f.t.Helper()
	f.mustBecome("nodes "+names, func() bool { return f.has() == names })
	f.mustBecome("good", func() bool { s := f.source.Status(); return s.Synced && s.Err == nil })
}

// mustFail waits for an error that contains text, and holds that the engine was told nothing.
func (f *fed) mustFail(text string) {
	f.t.Helper()
	had, taken := f.has(), f.taken()
	f.mustBecome("error "+text, func() bool {
		err := f.source.Status().Err
		return err != nil && strings.Contains(err.Error(), text)
	})
	if has := f.has(); has != had || f.taken() != taken {
		f.t.Fatalf("the engine was told something in spite of the error: %q, before %q", has, had)
	}
}

func (f *fed) mustBecome(what string, is func() bool) {
	f.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for late := time.After(patience); !is(); {
		select {
		case <-tick.C:
		case <-late:
			f.t.Fatalf("never %s; nodes %q, status %+v", what, f.has(), f.source.Status())
		}
	}
}

// nodes is a manifest of Nodes.
func nodes(names ...string) string {
	var b strings.Builder
	for _, name := range names {
		fmt.Fprintf(&b, "---\napiVersion: v1\nkind: Node\nmetadata:\n  name: %s\n", name)
	}
	return b.String()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t testing.TB, name, text string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(name), 0o755))
	must(t, os.WriteFile(name, []byte(text), 0o644))
}

// replace writes beside a file and renames over it.
func replace(t testing.TB, name, text string) {
	t.Helper()
	write(t, name+".tmp", text)
	must(t, os.Rename(name+".tmp", name))
}

// relink swaps a symbolic link the way the kubelet does.
func relink(t testing.TB, target, name string) {
	t.Helper()
	must(t, os.Symlink(target, name+"_tmp"))
	must(t, os.Rename(name+"_tmp", name))
}
