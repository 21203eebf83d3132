// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestWriter(t *testing.T) {
	b := newBed(t)
	if _, err := OpenWriter(t.Context(), b.dir); !errors.Is(err, ErrNotInstalled) {
		t.Errorf("without a tree: %v", err)
	}
	if err := os.Mkdir(b.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenWriter(t.Context(), b.dir); !errors.Is(err, ErrNoGeneration) {
		t.Errorf("in an empty tree: %v", err)
	}
	s := b.open(t, _TinyBytes)
	for _, agent := range []string{"with an agent", "without"} {
		w, err := OpenWriter(t.Context(), b.dir)
		if err != nil {
			t.Fatalf("%s: %v", agent, err)
		}
		want := []string{"tiny_notes", "tiny_sockets", "tiny_stamps", "tiny_totals"}
		if diff := cmp.Diff(want, sortedKeys(w.Frozen)); diff != "" {
			t.Errorf("%s: maps (-want +got):\n%s", agent, diff)
		}
		for range 2 { // the second time it is open
			g, err := w.Serving()
			if err != nil || g.Number != 1 || g.Maps["tiny_routes"] == nil || g.Programs["tiny_rule"] == nil {
				t.Errorf("%s: serving %+v, error %v", agent, g, err)
			}
		}
		inNamespace(t, func(ns int) {
			if err := w.Pods.Attach(t.Context(), Target{Pod: "b", Hook: "lookup", Netns: ns}); err != nil {
				t.Error(err)
			}
			if now := mustAttached(t, w.Pods, "b"); len(now) != 1 || now["lookup"].Defunct {
				t.Errorf("%s: attached %+v", agent, now)
			}
		})
		for range 2 {
			if err := w.Close(); err != nil {
				t.Errorf("%s: close: %v", agent, err)
			}
		}
		s.Close()
	}
}

// A writer keeps phase changes and an uninstall out, and they it; both waits end with their contexts.
func TestWritersAndPhasesExcludeEachOther(t *testing.T) {
	b := newBed(t)
	s := b.open(t, _TinyBytes)
	brief := func() context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}
	w, err := OpenWriter(t.Context(), b.dir)
	if err != nil {
		t.Fatal(err)
	}
	if unlock, err := s.Writers(t.Context(), false); err != nil {
		t.Errorf("a second writer: %v", err)
	} else {
		unlock()
	}
	if _, err := s.Writers(brief(), true); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a phase change beside a writer: %v", err)
	}
	s.Close()
	before := snapshot(t, b.dir)
	if err := Uninstall(brief(), b.options()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("an uninstall beside a writer: %v", err)
	}
	if diff := cmp.Diff(before, snapshot(t, b.dir)); diff != "" {
		t.Errorf("an uninstall that did not come to it changed (-before +after):\n%s", diff)
	}
	w.Close()
	s = b.open(t, _TinyBytes)
	unlock, err := s.Writers(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenWriter(brief(), b.dir); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a writer beside a phase change: %v", err)
	}
	unlock()
	w, err = OpenWriter(t.Context(), b.dir)
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
}
