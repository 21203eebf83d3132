// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Writers takes the lock of those who write maps: shared for a writer, exclusive to keep all of them out while the
// layout of a map changes. It waits as long as ctx lives. The caller ends it with the function returned.
func (s *Store) Writers(ctx context.Context, exclusive bool) (unlock func(), err error) {
	return lockWriters(ctx, s.view.tree, exclusive)
}

func lockWriters(ctx context.Context, t tree, exclusive bool) (func(), error) {
	how := unix.LOCK_SH
	if exclusive {
		how = unix.LOCK_EX
	}
	dir, err := openLocked(ctx, t.at(pathWriters), how)
	if err != nil {
		if stat, lost := os.Lstat(t.at(pathWriters)); lost == nil && !stat.IsDir() {
			return nil, &DamageError{string(t), []Damage{{pathWriters, "it is not a directory", evict}}}
		}
		return nil, fmt.Errorf("lock %s: %w", pathWriters, err)
	}
	return func() { dir.Close() }, nil
}

// Writer is for a process that lives shortly, such as a CNI plugin, and works whether or not an agent does. While it is
// open no phase changes, so it is to be closed soon.
type Writer struct {
	Pods   *Pods
	Frozen map[string]*ebpf.Map // the maps that all generations share, by name

	serves  uint16
	serving *Generation // nil until it is asked for
	super   *super
	unlock  func()
}

// OpenWriter opens the maps of a data plane that serves. It waits for a change of phase as long as ctx lives. It
// returns [ErrNotInstalled] if there is no tree and [ErrNoGeneration] if nothing serves yet.
func OpenWriter(ctx context.Context, dir string) (*Writer, error) {
	if err := CheckPlace(dir); err != nil {
		return nil, err
	}
	w := &Writer{Frozen: make(map[string]*ebpf.Map)}
	if err := w.open(ctx, tree(dir)); err != nil {
		w.Close()
		return nil, fmt.Errorf("open %s: %w", dir, err)
	}
	return w, nil
}

func (w *Writer) open(ctx context.Context, t tree) (err error) {
	w.unlock, err = lockWriters(ctx, t, false)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(string(t)); err == nil {
			return ErrNoGeneration // it is being made, or unmade
		}
		return ErrNotInstalled
	}
	if err != nil {
		return err
	}
	if err := w.openSuper(t); err != nil {
		return err
	}
	if w.super.word().Serve() == 0 || w.super.phase().state() == phaseRemoving {
		return ErrNoGeneration
	}
	return w.openPins(t)
}

func (w *Writer) openSuper(t tree) error {
	m, err := openPin[*ebpf.Map](t, pathSuper)
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNoGeneration
	}
	if err != nil {
		return fmt.Errorf("%s: %w", pathSuper, err)
	}
	w.super, err = openSuper(m)
	if err != nil {
		return fmt.Errorf("%s: %w", pathSuper, err)
	}
	return nil
}

// openPins opens what is there. What is missing the agent restores; it is an error only for a caller that needs it.
func (w *Writer) openPins(t tree) error {
	v := &view{tree: t}
	entries := make(map[string]*ebpf.Program)
	w.Pods = &Pods{tree: t, super: mapID(w.super.m), entries: entries, journal: &journal{}}
	w.serves = w.super.word().Serve()
	return v.without(readPins(v, pathMaps, w.Frozen), readPins(v, pathEntries, entries))
}

// Serving is the generation that new connections get: it cannot become another while the writer is open. It is opened
// when it is asked for, because what only enrols pods has no use for it. It ends with the writer.
func (w *Writer) Serving() (*Generation, error) {
	if w.serving != nil {
		return w.serving, nil
	}
	v, g, path := &view{tree: w.Pods.tree}, newGeneration(w.serves), generationPath(w.serves)
	if err := v.without(readPins(v, path+"/maps", g.Maps), readPins(v, path+"/progs", g.Programs)); err != nil {
		g.close()
		return nil, fmt.Errorf("open generation %d: %w", w.serves, err)
	}
	w.serving = g
	return g, nil
}

// without returns the first error, or one that names the pins which are not what their names say.
func (v *view) without(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	if len(v.stray) == 0 {
		return nil
	}
	lines := make([]string, len(v.stray))
	for i, s := range v.stray {
		lines[i] = s.damage().String()
	}
	return errors.New(strings.Join(lines, "; "))
}

// Word is the word as it is now.
func (w *Writer) Word() Word { return w.super.word() }

// Others finds programs of others that run where the entry programs of the node do.
func (w *Writer) Others() ([]Other, error) {
	v := &view{tree: w.Pods.tree, entries: w.Pods.entries, links: make(map[string]*attachment)}
	defer closeAll(v.links)
	if err := v.readLinks(); err != nil {
		return nil, err
	}
	return v.others()
}

// Close lets phases change again. It may be called twice.
func (w *Writer) Close() error {
	closeAll(w.Frozen)
	if w.serving != nil {
		w.serving.close()
	}
	if w.Pods != nil {
		closeAll(w.Pods.entries)
	}
	var err error
	if w.super != nil {
		err = w.super.close()
	}
	if w.unlock != nil {
		w.unlock()
	}
	*w = Writer{}
	return err
}
