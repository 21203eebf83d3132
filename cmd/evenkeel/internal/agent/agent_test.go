// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/bpf"
	"github.com/evenkeel/evenkeel/engine"
	"github.com/evenkeel/evenkeel/engine/enrol"
)

// What says only that there is no memory is told with what to do.
func TestNoMemoryIsExplained(t *testing.T) {
	err := explain(fmt.Errorf("map create: %w", unix.ENOMEM), true)
	if !errors.Is(err, unix.ENOMEM) || !strings.Contains(err.Error(), "--max-endpoints") {
		t.Error(err)
	}
}

// TestObjectErrors: what concerns single objects must not make a source send everything again, all else must.
func TestObjectErrors(t *testing.T) {
	full := &engine.ObjectError{Name: "a/full", Err: engine.ErrFull}
	conflict := &engine.ObjectError{Name: "a/conflict", Err: engine.ErrConflict}
	stale := fmt.Errorf("write maps: %w", bpf.ErrStale)
	tests := []struct {
		name    string
		err     error
		objects int
		rest    error
	}{
		{"one", full, 1, nil},
		{"joined", errors.Join(full, conflict), 2, nil},
		{"joined twice", errors.Join(errors.Join(full), conflict), 2, nil},
		{"wrapped", fmt.Errorf("apply: %w", full), 1, nil},
		{"another", stale, 0, bpf.ErrStale},
		{"mixed", errors.Join(full, stale), 1, bpf.ErrStale},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			objects, rest := objectErrors(test.err)
			if len(objects) != test.objects || !errors.Is(rest, test.rest) || (rest == nil) != (test.rest == nil) {
				t.Errorf("%v and %v", objects, rest)
			}
		})
	}
}

// TestSaid: a problem that stays is logged once, not at every look.
func TestSaid(t *testing.T) {
	var log bytes.Buffer
	s := &said{log: slog.New(slog.NewTextHandler(&log, nil))}
	lines := func() int {
		n := bytes.Count(log.Bytes(), []byte("\n"))
		log.Reset()
		return n
	}
	of := func(cookie uint64, done, err string) enrol.Mended {
		m := enrol.Mended{Workload: enrol.Workload{Name: "a/b", Cookie: cookie}, Done: done}
		if err != "" {
			m.Err = errors.New(err)
		}
		return m
	}
	for i, step := range []struct {
		mended []enrol.Mended
		err    error
		want   int
	}{
		{[]enrol.Mended{of(1, "", "x"), of(2, "", "x")}, nil, 2},
		{[]enrol.Mended{of(1, "", "x"), of(2, "", "x")}, nil, 0},
		{[]enrol.Mended{of(1, "", "y"), of(2, "", "x")}, nil, 1},
		{nil, errors.New("z"), 1},
		{nil, errors.New("z"), 0},
		{[]enrol.Mended{of(1, "", "y")}, nil, 0},
		{[]enrol.Mended{of(1, "attached again", "")}, nil, 1},
		{[]enrol.Mended{of(1, "attached again", "")}, nil, 1},
		{[]enrol.Mended{of(1, "", "y")}, nil, 1},
		{nil, errors.New("z"), 1},
	} {
		s.pods(step.mended, step.err)
		if n := lines(); n != step.want {
			t.Errorf("step %d: %d lines, want %d", i, n, step.want)
		}
	}
}

func TestNotify(t *testing.T) {
	if err := notify("", "READY=1"); err != nil {
		t.Errorf("nobody asked: %v", err)
	}
	path := filepath.Join(t.TempDir(), "notify")
	if err := notify(path, "READY=1"); err == nil {
		t.Error("nobody is there, and nobody was told")
	}
	for _, name := range []string{path, "@evenkeel-test-" + filepath.Base(t.TempDir()) + t.Name()} {
		l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		if err := notify(name, "READY=1", "STATUS=well"); err != nil {
			t.Error(err)
		}
		buffer := make([]byte, 100)
		n, err := l.Read(buffer)
		if got := string(buffer[:n]); err != nil || got != "READY=1\nSTATUS=well" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		l.Close()
	}
}
