// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/pin"
	"golang.org/x/sys/unix"
)

// Pins lists what is pinned below a directory of a bpffs: relative paths, sorted.
func Pins(dir string) ([]string, error) {
	var pins []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.Type().IsRegular() {
			name, err := filepath.Rel(dir, path)
			pins = append(pins, name)
			return err
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list pins: %w", err)
	}
	slices.Sort(pins)
	return pins, nil
}

// inodeOf returns the number of a file, 0 if it is not there. What is made again has another one.
func inodeOf(path string) (uint64, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("look whether it is there: %w", err)
	}
	return info.Sys().(*syscall.Stat_t).Ino, nil
}

// wasRemoved is 1 if what had that number at a path is gone, or was and has been made again: the count of a removal.
func wasRemoved(path string, inode uint64) (uint64, error) {
	now, err := inodeOf(path)
	if err != nil || now == inode {
		return 0, err
	}
	return 1, nil
}

// Unpin removes a pin of an agent. What was pinned lives on if something else holds it. Healing restarts the agent if
// the pin is still missing: it is the agent's to restore.
type Unpin struct {
	Agent *Agent `json:"agent"`
	Pin   string `json:"pin"` // path
	Inode uint64 `json:"inode"`
}

func (u *Unpin) String() string { return "pin-deleted " + u.Pin }

// Prepare finds the pin.
func (u *Unpin) Prepare(context.Context) (err error) {
	u.Inode, err = inodeOf(u.Pin)
	if err == nil && u.Inode == 0 {
		err = fmt.Errorf("pin %s: %w", u.Pin, fs.ErrNotExist)
	}
	return err
}

// Inject removes it.
func (u *Unpin) Inject(context.Context) error {
	if err := os.Remove(u.Pin); err != nil {
		return fmt.Errorf("remove pin: %w", err)
	}
	return nil
}

// Heal restarts the agent if the pin is missing.
func (u *Unpin) Heal(ctx context.Context) error {
	inode, err := inodeOf(u.Pin)
	if err != nil || inode != 0 {
		return errors.Join(err, u.Agent.start(ctx))
	}
	return u.Agent.restart(ctx)
}

// Active is 1 if the pin is gone, or was and has been made again.
func (u *Unpin) Active(context.Context) (uint64, error) { return wasRemoved(u.Pin, u.Inode) }

// UnpinAll kills the agent of a node and removes all of its pins: what a reboot takes, with the traffic going on.
type UnpinAll struct {
	Agent *Agent `json:"agent"`
	Dir   string `json:"dir"`
	Inode uint64 `json:"inode"`
	Count int    `json:"count"` // how many there were
}

func (u *UnpinAll) String() string { return "pins-deleted " + u.Dir }

// Prepare counts the pins.
func (u *UnpinAll) Prepare(context.Context) (err error) {
	if u.Inode, err = inodeOf(u.Dir); err != nil {
		return err
	}
	pins, err := Pins(u.Dir)
	u.Count = len(pins)
	if err == nil && u.Count == 0 {
		err = fmt.Errorf("nothing is pinned in %s", u.Dir)
	}
	return err
}

// Inject ends the agent and removes the directory.
func (u *UnpinAll) Inject(ctx context.Context) error {
	if err := u.Agent.end(ctx); err != nil {
		return err
	}
	if err := os.RemoveAll(u.Dir); err != nil {
		return fmt.Errorf("remove pins: %w", err)
	}
	return nil
}

// Heal starts the agent, which makes everything anew.
func (u *UnpinAll) Heal(ctx context.Context) error { return u.Agent.start(ctx) }

// Active counts the pins that are gone.
func (u *UnpinAll) Active(context.Context) (uint64, error) {
	removed, err := wasRemoved(u.Dir, u.Inode)
	return removed * uint64(u.Count), err
}

// Foreign is what a pin is exchanged for.
type Foreign string

// Things that nobody expects under the name of another: all belong to no data plane.
const (
	ForeignMap       Foreign = "map"
	ForeignProgram   Foreign = "program"
	ForeignLink      Foreign = "link"
	ForeignDirectory Foreign = "directory"
)

// Exchange puts something foreign in the place of a pin, in one step (RENAME_EXCHANGE). The pin is kept aside, so what
// was pinned stays alive and healing puts it back as it was.
type Exchange struct {
	Agent *Agent  `json:"agent"`
	Pin   string  `json:"pin"`
	With  Foreign `json:"with"`
	Inode uint64  `json:"inode"` // of the pin
}

func (e *Exchange) String() string { return fmt.Sprintf("pin-foreign %s: a %s", e.Pin, e.With) }

// aside is outside the agent's directory, where it would be one pin too many.
func (e *Exchange) aside() string {
	return filepath.Join(filepath.Dir(e.root()), "fault_"+strings.ReplaceAll(strings.TrimPrefix(e.Pin, e.root()+"/"), "/", "_"))
}

// root is the directory of the lab's bpffs that the node has.
func (e *Exchange) root() string {
	path := e.Pin
	for {
		parent := filepath.Dir(path)
		if filepath.Base(parent) == e.Agent.Lab || parent == path {
			return path
		}
		path = parent
	}
}

// Prepare finds the pin.
func (e *Exchange) Prepare(context.Context) (err error) {
	if e.Inode, err = inodeOf(e.Pin); err == nil && e.Inode == 0 {
		err = fmt.Errorf("pin %s: %w", e.Pin, fs.ErrNotExist)
	}
	if _, there := os.Lstat(e.aside()); there == nil {
		err = errors.Join(err, fmt.Errorf("%s is in the way", e.aside()))
	}
	return err
}

// Inject makes the foreign thing and exchanges it for the pin.
func (e *Exchange) Inject(context.Context) error {
	_, node, err := e.Agent.info()
	if err != nil {
		return err
	}
	if err := makeForeign(e.With, e.aside(), node.Netns); err != nil {
		return fmt.Errorf("make foreign %s: %w", e.With, err)
	}
	return e.exchange()
}

func (e *Exchange) exchange() error {
	if err := unix.Renameat2(unix.AT_FDCWD, e.aside(), unix.AT_FDCWD, e.Pin, unix.RENAME_EXCHANGE); err != nil {
		return fmt.Errorf("exchange %s and %s: %w", e.aside(), e.Pin, err)
	}
	return nil
}

// Heal puts the pin back and removes the foreign thing. An agent that ended over it is started.
func (e *Exchange) Heal(ctx context.Context) error {
	aside, err := inodeOf(e.aside())
	if err != nil {
		return err
	}
	if aside == e.Inode && aside != 0 {
		at, err := inodeOf(e.Pin)
		if err == nil && at == 0 { // somebody has removed it
			err = os.Rename(e.aside(), e.Pin)
		} else if err == nil {
			err = e.exchange()
		}
		if err != nil {
			return err
		}
	}
	if err := os.RemoveAll(e.aside()); err != nil {
		return fmt.Errorf("remove foreign %s: %w", e.With, err)
	}
	return e.Agent.start(ctx)
}

// Active is 1 while something else is in the place of the pin.
func (e *Exchange) Active(context.Context) (uint64, error) {
	inode, err := inodeOf(e.Pin)
	if err != nil || inode == e.Inode {
		return 0, err
	}
	return 1, nil
}

// makeForeign makes something and pins it. A link is one to a namespace, where its program lets everything through.
func makeForeign(what Foreign, path, netns string) error {
	var object pin.Pinner
	switch what {
	case ForeignDirectory:
		return os.Mkdir(path, 0o700)
	case ForeignMap:
		m, err := ebpf.NewMap(&ebpf.MapSpec{Name: "foreign", Type: ebpf.Hash, KeySize: 3, ValueSize: 5, MaxEntries: 7})
		if err != nil {
			return err
		}
		object = m
	case ForeignProgram, ForeignLink:
		p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "foreign", Type: ebpf.SkLookup, License: "GPL",
			AttachType: ebpf.AttachSkLookup, Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()}})
		if err != nil {
			return err
		}
		object = p
		if what == ForeignLink {
			ns, err := os.Open(netns)
			if err != nil {
				return errors.Join(err, p.Close())
			}
			defer ns.Close()
			l, err := link.AttachNetNs(int(ns.Fd()), p)
			if err := errors.Join(err, p.Close()); err != nil {
				return err
			}
			object = l
		}
	default:
		return fmt.Errorf("%w thing %q", ErrUnknown, what)
	}
	return errors.Join(object.Pin(path), object.Close())
}
