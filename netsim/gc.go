// SPDX-License-Identifier: Apache-2.0

package netsim

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
)

// Names returns the names of all labs that there are, whole or not, sorted.
func Names() ([]string, error) {
	entries, err := os.ReadDir(stateRoot)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list labs: %w", err)
	}
	var names []string
	for _, entry := range entries {
		if entry.IsDir() && checkName(entry.Name()) == nil {
			names = append(names, entry.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// Collect removes the labs that nobody will take down: those whose owner has ended, and those whose up or down was
// interrupted. A lab that another process is changing is left alone. It returns the names of those that it removed,
// also together with an error about others.
func Collect(ctx context.Context, options Options) (removed []string, err error) {
	names, err := Names()
	if err != nil {
		return nil, err
	}
	return collect(ctx, options, names)
}

// collect is Collect among those names.
func collect(ctx context.Context, options Options, names []string) (removed []string, err error) {
	if options, err = options.complete(); err != nil {
		return nil, err
	}
	var problems []error
	for _, name := range names {
		p, err := newPaths(name)
		if err != nil {
			return removed, err
		}
		l := &Lab{options: options, paths: p, agents: map[string]*child{}}
		was, err := l.collect(ctx, p.garbage)
		if err != nil {
			problems = append(problems, fmt.Errorf("collect lab %s: %w", name, err))
		}
		if was {
			removed = append(removed, name)
		}
	}
	return removed, errors.Join(problems...)
}

// collect removes the lab if it is garbage, which is asked once nobody else can be at work on it.
func (l *Lab) collect(ctx context.Context, garbage func() (bool, error)) (removed bool, err error) {
	unlock, err := l.paths.lock()
	if errors.Is(err, ErrBusy) || errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer unlock()
	is, err := garbage()
	if err != nil || !is {
		return false, err
	}
	err = l.remove(ctx)
	return err == nil, err
}

// garbage tells whether nobody will take the lab down. Its lock is held, so nobody is at work on it.
func (p paths) garbage() (bool, error) {
	s, err := p.whole()
	if err != nil {
		return false, err
	}
	return s == nil || s.Owner != nil && !s.Owner.Alive(), nil
}

// orphaned tells whether the lab, whole or not, was of a process that has ended. One that nobody was to own is not:
// whoever made it may want to look at what is left.
func (p paths) orphaned() (bool, error) {
	s, err := readState(p.state())
	return err == nil && s != nil && s.Owner != nil && !s.Owner.Alive(), err
}
