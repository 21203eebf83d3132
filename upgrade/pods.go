// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Pods attaches entry programs to single pods, and keeps those links as pins, so that they outlive whoever made them.
// The agent has one in its [Store], a short-lived process in its [Writer]; they may work on the same pod at once, each
// pod's directory being its lock.
type Pods struct {
	tree    tree
	super   ebpf.MapID
	entries map[string]*ebpf.Program
	journal *journal
}

// Target is where a hook is attached for a pod.
type Target struct {
	Pod       string // names the pod: letters, digits, '_', ':' and '-', for a dot cannot be
	Hook      string
	Netns     int // for a Netns hook: descriptor of the pod's network namespace, the caller's to close
	Interface int // for a Tcx hook: index of the pod's interface, in the namespace that all owners and writers are in
}

// Attached is one link of a pod.
type Attached struct {
	Hook      string
	Link      link.ID
	Program   ebpf.ProgramID
	Netns     uint64 // inode of the namespace of a Netns hook
	Interface int    // index of the interface of a Tcx hook
	Defunct   bool   // attached to nothing: the namespace or the interface is gone, or somebody detached it
}

// Pod is one pod in the hands of whoever has its lock.
type Pod struct {
	*Pods
	name string
	lock *os.File // the pod's directory
}

// Lock waits, as long as ctx lives, until nobody else works on a pod, and keeps everybody else away until [Pod.Close],
// so that several changes to a pod, and what the caller writes between them, are one to others. The kernel gives the
// lock back when the process dies.
func (p *Pods) Lock(ctx context.Context, pod string) (*Pod, error) {
	if err := checkName("pod", pod); err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	lock, err := p.lock(ctx, join(pathPods, pod))
	if err != nil {
		return nil, fmt.Errorf("lock pod %s: %w", pod, err)
	}
	return &Pod{p, pod, lock}, nil
}

// Close gives the lock back, and takes the pod's directory away if no link is left in it. It may be called twice.
func (d *Pod) Close() error {
	if d.lock == nil {
		return nil
	}
	defer func() { d.lock.Close(); d.lock = nil }()
	dir := join(pathPods, d.name)
	left, err := d.tree.list(dir)
	if err != nil || len(left) > 0 {
		return err
	}
	err = d.journal.do(StepRemoveDirectory, dir, func() error { return unix.Rmdir(d.tree.at(dir)) })
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("unlock pod %s: %w", d.name, err)
	}
	return nil
}

// Attach is [Pod.Attach] under a lock of its own.
func (p *Pods) Attach(ctx context.Context, t Target) (err error) {
	d, err := p.Lock(ctx, t.Pod)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	return d.Attach(ctx, t)
}

// Attach attaches a hook to the pod, whatever [Target.Pod] is. A healthy link that is there stays; one to another
// target, or to none any more, is replaced without a moment in between. It refuses to replace a link that is not this
// data plane's.
func (d *Pod) Attach(ctx context.Context, t Target) error {
	entry := d.entries[t.Hook]
	if entry == nil {
		return fmt.Errorf("attach %s to pod %s: there is no such hook", t.Hook, d.name)
	}
	if err := d.attach(ctx, join(pathPods, d.name, t.Hook), t, entry); err != nil {
		return fmt.Errorf("attach %s to pod %s: %w", t.Hook, d.name, err)
	}
	return nil
}

func (p *Pods) attach(ctx context.Context, path string, t Target, entry *ebpf.Program) error {
	at, target, err := t.where(entry)
	if err != nil {
		return err
	}
	if err := p.drop(path + suffixNew); err != nil { // left by a process that was killed
		return err
	}
	old, err := openLink(p.tree, path)
	if err == nil {
		defer old.Close()
		if old.at != at {
			return &DamageError{string(p.tree), []Damage{{path, "it is not a link of this hook", evict}}}
		}
		if old.target == target && old.info.Program == programID(entry) {
			return nil
		}
		if err := p.checkOurs(path, old); err != nil {
			return err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var l *link.RawLink
	err = p.journal.do(StepAttach, path, func() (err error) {
		l, err = attachLink(ctx, t.link(at, entry))
		return err
	})
	if err != nil {
		return err
	}
	defer l.Close()
	return p.journal.pinLink(p.tree, path, l)
}

// where is what the target is to the kernel: the inode of a namespace or the index of an interface.
func (t Target) where(entry *ebpf.Program) (Where, uint64, error) {
	switch entry.Type() {
	case ebpf.SkLookup:
		var stat unix.Stat_t
		if err := unix.Fstat(t.Netns, &stat); err != nil {
			return 0, 0, fmt.Errorf("look at namespace: %w", err)
		}
		return Netns, stat.Ino, nil
	case ebpf.SchedCLS:
		if t.Interface <= 0 {
			return 0, 0, fmt.Errorf("interface %d: an index is positive", t.Interface)
		}
		return Tcx, uint64(t.Interface), nil
	}
	return 0, 0, errors.New("the hook is attached for the whole node, not for a pod")
}

// link says how to attach; at an interface the link comes before all others.
func (t Target) link(at Where, entry *ebpf.Program) link.RawLinkOptions {
	o := link.RawLinkOptions{Program: entry, Target: t.Netns, Attach: ebpf.AttachSkLookup}
	if at == Tcx {
		o.Target, o.Attach, o.Flags = t.Interface, ebpf.AttachTCXIngress, unix.BPF_F_BEFORE
	}
	return o
}

// Detach is [Pod.Detach] under a lock of its own, if the pod has links.
func (p *Pods) Detach(ctx context.Context, pod string, hooks ...string) error {
	if err := checkName("pod", pod); err != nil {
		return fmt.Errorf("detach: %w", err)
	}
	return p.detach(ctx, pod, hooks)
}

func (p *Pods) detach(ctx context.Context, pod string, hooks []string) error {
	lock, err := openLocked(ctx, p.tree.at(join(pathPods, pod)), unix.LOCK_EX)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("detach pod %s: %w", pod, err)
	}
	d := &Pod{p, pod, lock}
	return errors.Join(d.Detach(hooks...), d.Close())
}

// Detach detaches hooks from the pod, all of them if none is named. What is not attached is no error.
func (d *Pod) Detach(hooks ...string) error {
	dir := join(pathPods, d.name)
	if len(hooks) == 0 {
		entries, err := d.tree.list(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			hooks = append(hooks, e.Name())
		}
	}
	for _, h := range hooks {
		if err := d.drop(join(dir, h)); err != nil {
			return fmt.Errorf("detach pod %s: %w", d.name, err)
		}
	}
	return nil
}

// sweep drops links that were made to replace another by a process that did not come to it. It takes each pod's lock,
// for another process may be about to.
func (p *Pods) sweep(ctx context.Context, pods map[string][]string) error {
	for pod, hooks := range pods {
		hooks = slices.DeleteFunc(slices.Clone(hooks), func(h string) bool { return !building(h) })
		if len(hooks) == 0 {
			continue
		}
		if err := p.detach(ctx, pod, hooks); err != nil {
			return fmt.Errorf("sweep: %w", err)
		}
	}
	return nil
}

// takeOff detaches a link that is there and returns when that is done: what it leads into is about to go.
func (p *Pods) takeOff(path string) error {
	return p.withOurs(path, func(l *attachment) error {
		if err := l.takeOff(); err != nil {
			return fmt.Errorf("detach %s: %w", path, err)
		}
		return nil
	})
}

// drop unpins a link, which detaches it a little later, if it is there.
func (p *Pods) drop(path string) error {
	return p.withOurs(path, func(*attachment) error {
		return p.journal.do(StepUnpin, path, func() error { return unix.Unlink(p.tree.at(path)) })
	})
}

// withOurs does something with the link of a path, if there is one. It refuses what is not ours.
func (p *Pods) withOurs(path string, do func(*attachment) error) error {
	l, err := openLink(p.tree, path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	defer l.Close()
	if err := p.checkOurs(path, l); err != nil {
		return err
	}
	return do(l)
}

func (p *Pods) checkOurs(path string, l *attachment) error {
	ours, err := attachesOurs(l, p.super)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if !ours {
		return &DamageError{string(p.tree), []Damage{{path, "it attaches a program that is not ours", evict}}}
	}
	return nil
}

// lock makes the pod's directory if need be and locks it. Another may remove it between the two.
func (p *Pods) lock(ctx context.Context, dir string) (*os.File, error) {
	for {
		lock, err := openLocked(ctx, p.tree.at(dir), unix.LOCK_EX)
		if !errors.Is(err, fs.ErrNotExist) {
			return lock, err
		}
		err = p.journal.do(StepMakeDirectory, dir, func() error { return os.Mkdir(p.tree.at(dir), 0o700) })
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
}

// Attached lists the links of a pod; none if it has none.
func (p *Pods) Attached(pod string) ([]Attached, error) {
	if err := checkName("pod", pod); err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	all, err := p.tree.attached(join(pathPods, pod))
	if err != nil {
		return nil, fmt.Errorf("list links of pod %s: %w", pod, err)
	}
	return all, nil
}

func (t tree) attached(dir string) ([]Attached, error) {
	entries, err := t.list(dir)
	if err != nil {
		return nil, err
	}
	var all []Attached
	for _, e := range entries {
		if building(e.Name()) {
			continue
		}
		l, err := openLink(t, join(dir, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.Name(), err)
		}
		a := Attached{Hook: e.Name(), Link: l.info.ID, Program: l.info.Program, Defunct: l.defunct}
		switch l.at {
		case Netns:
			a.Netns = l.target
		case Tcx:
			a.Interface = int(l.target)
		}
		l.Close()
		all = append(all, a)
	}
	return all, nil
}

// List names the pods that have links.
func (p *Pods) List() ([]string, error) {
	entries, err := p.tree.list(pathPods)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}
