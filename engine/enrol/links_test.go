// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
)

// kernelLinks attaches real programs, which do nothing, and keeps the links open in place of pins.
type kernelLinks struct {
	mu       sync.Mutex
	programs map[string]*ebpf.Program
	links    map[string]map[string]link.Link
	locks    map[string]chan struct{}
	fail     string // hook that cannot be attached
	free     bool   // a lock keeps nobody out
	// between is called once, after somebody has looked at what is attached; what it returns is what he is told.
	between func() error
	waiting chan struct{} // somebody waits for a lock
}

func newLinks(t testing.TB) *kernelLinks {
	t.Helper()
	k := &kernelLinks{
		programs: make(map[string]*ebpf.Program), links: make(map[string]map[string]link.Link),
		locks: make(map[string]chan struct{}), waiting: make(chan struct{}, 1),
	}
	for hook, spec := range map[string]*ebpf.ProgramSpec{
		hookLookup(): {Type: ebpf.SkLookup, AttachType: ebpf.AttachSkLookup, Instructions: returning(1)},
		hookTcx():    {Type: ebpf.SchedCLS, AttachType: ebpf.AttachTCXIngress, Instructions: returning(-1)},
	} {
		spec.License = "GPL"
		p, err := ebpf.NewProgram(spec)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.Close() })
		k.programs[hook] = p
	}
	t.Cleanup(func() {
		for id := range k.links {
			if err := k.Detach(t.Context(), id); err != nil {
				t.Error(err)
			}
		}
	})
	return k
}

func returning(n int32) asm.Instructions {
	return asm.Instructions{asm.Mov.Imm(asm.R0, n), asm.Return()}
}

// Lock waits for others, as the real one does; with free it does not, which the tests of the lock must notice.
func (k *kernelLinks) Lock(ctx context.Context, pod string) (PodLinks, error) {
	k.mu.Lock()
	if k.locks[pod] == nil {
		k.locks[pod] = make(chan struct{}, 1)
	}
	lock := k.locks[pod]
	k.mu.Unlock()
	if k.free {
		return &lockedLinks{k, pod, func() {}}, nil
	}
	locked := &lockedLinks{k, pod, sync.OnceFunc(func() { <-lock })}
	select {
	case lock <- struct{}{}:
		return locked, nil
	default:
	}
	select {
	case k.waiting <- struct{}{}:
	default:
	}
	select {
	case lock <- struct{}{}:
		return locked, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// lockedLinks are those of one pod.
type lockedLinks struct {
	*kernelLinks
	pod    string
	unlock func()
}

func (l *lockedLinks) Detach(hooks ...string) error {
	return l.kernelLinks.Detach(context.Background(), l.pod, hooks...)
}

func (l *lockedLinks) Close() error {
	l.unlock()
	return nil
}

func (l *lockedLinks) Attach(_ context.Context, a Attachment) error {
	k := l.kernelLinks
	k.mu.Lock()
	defer k.mu.Unlock()
	if a.Hook == k.fail {
		return errors.New("it was told to fail")
	}
	if old := k.links[l.pod][a.Hook]; old != nil {
		old.Close()
	}
	var made link.Link
	var err error
	if a.Hook == hookLookup() {
		made, err = link.AttachNetNs(a.Netns, k.programs[a.Hook])
	} else {
		made, err = link.AttachTCX(link.TCXOptions{
			Interface: a.Interface, Program: k.programs[a.Hook], Attach: ebpf.AttachTCXIngress,
		})
	}
	if err != nil {
		return err
	}
	if k.links[l.pod] == nil {
		k.links[l.pod] = make(map[string]link.Link)
	}
	k.links[l.pod][a.Hook] = made
	return nil
}

func (k *kernelLinks) Attached(pod string) ([]Link, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var all []Link
	for hook, l := range k.links[pod] {
		info, err := l.Info()
		if err != nil {
			return nil, err
		}
		found := Link{Hook: hook}
		if ns := info.NetNs(); ns != nil {
			found.Netns, found.Defunct = uint64(ns.NetnsInode), ns.NetnsInode == 0
		}
		if tcx := info.TCX(); tcx != nil {
			found.Interface, found.Defunct = int(tcx.Ifindex), tcx.Ifindex == 0
		}
		all = append(all, found)
	}
	if between := k.between; between != nil {
		k.between = nil
		k.mu.Unlock()
		defer k.mu.Lock()
		return all, between()
	}
	return all, nil
}

func (k *kernelLinks) Detach(_ context.Context, pod string, hooks ...string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(hooks) == 0 {
		hooks = []string{hookLookup(), hookTcx()}
	}
	for _, hook := range hooks {
		if l := k.links[pod][hook]; l != nil {
			if err := l.Close(); err != nil {
				return err
			}
			delete(k.links[pod], hook)
		}
	}
	if len(k.links[pod]) == 0 {
		delete(k.links, pod)
	}
	return nil
}

func (k *kernelLinks) Pods() ([]string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var all []string
	for id := range k.links {
		all = append(all, id)
	}
	return all, nil
}
