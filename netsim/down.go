// SPDX-License-Identifier: Apache-2.0

package netsim

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/engine/expedite"
)

// Down removes the lab and returns when its processes are gone. The kernel takes namespaces and links apart after that,
// in its own time. A lab that is gone already is no error.
func (l *Lab) Down(ctx context.Context) error {
	unlock, err := l.paths.lock()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("take down lab %s: %w", l.Name(), err)
	}
	defer unlock()
	s, err := readState(l.paths.state())
	if err == nil && s != nil && l.state != nil && !s.Created.Equal(l.state.Created) {
		return nil // the lab is gone, and another has its name
	}
	return l.remove(ctx)
}

// Down removes a lab by name, whatever state it is in; one that is not there is no error. It returns ErrBusy while
// another process changes it.
func Down(ctx context.Context, name string, options Options) error {
	options, err := options.complete()
	if err != nil {
		return err
	}
	p, err := newPaths(name)
	if err != nil {
		return err
	}
	if err := checkName(name); err != nil {
		return err
	}
	// Made if it is not there: something may be left of a lab whose directory was removed by hand, and the lock is on it.
	if err := makeDirectory(p.dir(), 0o755); err != nil {
		return err
	}
	l := &Lab{options: options, paths: p, agents: map[string]*child{}}
	return l.Down(ctx)
}

// remove notes that the lab goes, and removes it. Its lock is held.
func (l *Lab) remove(ctx context.Context) error {
	self, err := ProcessOf(os.Getpid())
	if err != nil {
		return err
	}
	if err := l.paths.note(actDown, false, self); err != nil {
		return err
	}
	// Every pod's source check that goes with its pins costs the kernel a grace period.
	err = expedite.Kernel().During(func() error { return l.takeDown(ctx) })
	if err != nil {
		return fmt.Errorf("take down lab %s: %w", l.Name(), err)
	}
	return nil
}

// takeDown removes everything that there is of the lab. It needs no state: all is found in places of the lab's name. It
// can be repeated after it was interrupted, and ends with the directory that says that there is something to remove.
func (l *Lab) takeDown(ctx context.Context) error {
	p := l.paths
	steps := []func() error{
		func() error { return killCgroup(ctx, p.cgroup()) },
		func() error { l.reap(); return l.removePins(ctx) },
		func() error { return removeCgroup(p.cgroup()) },
		p.hideNodes,
		func() error { return unmountAll(p.namespaces()) },
		func() error { return os.RemoveAll(p.dir()) },
		p.removeParents,
	}
	done := l.options.steps("parts removed", len(steps))
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
		done()
	}
	return nil
}

// removeParents removes the directories of all labs, if this was the last: they are not empty before.
func (p paths) removeParents() error {
	for _, parent := range []string{filepath.Dir(p.cgroup()), filepath.Dir(p.pins()), stateRoot} {
		err := unix.Rmdir(parent)
		if err != nil && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("remove %s: %w", parent, err)
		}
	}
	return nil
}

// reap waits for the processes that this one started; all have been killed.
func (l *Lab) reap() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.agents {
		<-c.done
	}
	for _, c := range l.others {
		<-c.done
	}
	clear(l.agents)
	l.others = nil
}

// uninstallTime is how long `evenkeel uninstall` may take before its pins are removed without it.
const uninstallTime = 20 * time.Second

// removePins removes what agents have pinned, node by node.
func (l *Lab) removePins(ctx context.Context) error {
	entries, err := os.ReadDir(l.paths.pins())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list pins: %w", err)
	}
	var group errgroup.Group
	group.SetLimit(workers)
	for _, entry := range entries {
		if entry.IsDir() { // else the kernel's own: every bpffs has maps.debug and progs.debug
			group.Go(func() error { return l.uninstall(ctx, entry.Name()) })
		}
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if err := unmountAll(l.paths.pins()); err != nil {
		return err
	}
	if err := os.RemoveAll(l.paths.pins()); err != nil {
		return fmt.Errorf("remove pins: %w", err)
	}
	return nil
}

// uninstall removes what an agent has pinned and attached on a node. The binary that made it knows the right order;
// where that is gone or fails, the pins are unlinked, and links that lose their last pin detach.
func (l *Lab) uninstall(ctx context.Context, node string) error {
	pins := l.paths.nodePins(node)
	limited, cancel := context.WithTimeout(ctx, uninstallTime)
	defer cancel()
	cmd := exec.CommandContext(limited, l.options.Binary, "uninstall", "--yes", "--pin-dir", pins)
	_ = cmd.Run() // whatever it leaves goes now
	if err := os.RemoveAll(pins); err != nil {
		return fmt.Errorf("remove pins of node %s: %w", node, err)
	}
	return ctx.Err()
}
