// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Reattach attaches hooks of the whole node that somebody has taken off since [Open], and returns their names. It
// attaches to the cgroup of the other hooks only, so that a pod is never under a part of them: it returns a
// [RefusedError] if the path that Open was given leads to another by now.
func (s *Store) Reattach(ctx context.Context) (names []string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	off, id, err := s.detached()
	if err != nil || len(off) == 0 {
		return nil, err
	}
	cgroup, now, err := s.object.cgroup(s.cgroup)
	if err != nil {
		return nil, err
	}
	defer cgroup.Close() // a nil file is fine
	if id != 0 && id != now {
		return nil, &RefusedError{[]Change{{Name: pathLinks, Expected: "attached to the cgroup " + cgroupName(now),
			Found: "attached to the cgroup " + cgroupName(id)}}}
	}
	for _, h := range off {
		if err := s.attach(ctx, h, cgroup); err != nil {
			return names, err
		}
		names = append(names, h.Name)
	}
	return names, nil
}

// detached returns the hooks of the whole node that are attached to nothing, and the id of the cgroup that the others
// are attached to. What somebody else has put in the place of a link is not ours to replace.
func (s *Store) detached() (off []Hook, cgroup uint64, err error) {
	for _, h := range s.hooks {
		if !h.At.node() {
			continue
		}
		path := join(pathLinks, h.Name)
		l, err := openLink(s.view.tree, path)
		var stray *strayError
		switch {
		case errors.Is(err, fs.ErrNotExist):
			off = append(off, h)
			continue
		case errors.As(err, &stray):
			continue
		case err != nil:
			return nil, 0, fmt.Errorf("open %s: %w", path, err)
		}
		switch {
		case l.at != h.At || l.info.Program != programID(s.view.entries[h.Name]):
		case l.defunct:
			off = append(off, h)
		case h.At == Cgroup:
			cgroup = l.target
		}
		l.Close()
	}
	return off, cgroup, nil
}

// attach attaches a hook of the whole node and pins the link at once: until then it lives as long as this process. A
// link that is there is attached to nothing; the new one takes its name.
func (s *Store) attach(ctx context.Context, h Hook, cgroup *os.File) error {
	path := join(pathLinks, h.Name)
	options := link.RawLinkOptions{Program: s.view.entries[h.Name], Attach: h.Attach}
	switch h.At {
	case Cgroup:
		options.Target = int(cgroup.Fd())
	case Sockhash:
		options.Target = s.view.maps[h.Map].FD()
	}
	var l *link.RawLink
	err := s.journal.do(StepAttach, path, func() (err error) {
		l, err = attachLink(ctx, options)
		if errors.Is(err, unix.EINVAL) && h.At == Sockhash {
			return fmt.Errorf("%w (links to a %v need Linux 6.10)", err, h.At)
		}
		return err
	})
	if err != nil {
		return err
	}
	defer l.Close()
	return s.journal.pinLink(s.view.tree, path, l)
}

// attachLink attaches a program. A link whose last name goes is taken off by a worker of the kernel, a little later, and
// until then a map of sockets (EBUSY) or an interface (EEXIST) refuses the same again; so it is tried for a while.
func attachLink(ctx context.Context, o link.RawLinkOptions) (*link.RawLink, error) {
	const patience = time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(retry)
	defer tick.Stop()
	for {
		l, err := link.AttachRawLink(o)
		if err == nil || !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.EEXIST) {
			return l, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: another program is attached there", err)
		case <-tick.C:
		}
	}
}

// pinLink gives a fresh link its name, over the one that may be there.
func (j *journal) pinLink(t tree, path string, l *link.RawLink) error {
	err := j.do(StepPinLink, path, func() error { return pin(l, t.at(path)) })
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	beside := path + suffixNew
	if err := j.do(StepPinLink, beside, func() error { return pin(l, t.at(beside)) }); err != nil {
		return err
	}
	return j.do(StepReplaceLink, path, func() error { return unix.Rename(t.at(beside), t.at(path)) })
}
