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

// attach attaches a hook of the whole node and pins the link at once: until then it lives as long as this process. A
// link that is there is defunct; the new one takes its name, so that there is no moment without.
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
