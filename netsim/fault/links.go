// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"context"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Detach detaches a pinned link (BPF_LINK_DETACH), as anybody with the right to may. The pin stays and leads to a link
// that is attached to nothing. Healing restarts the agent, which has to attach anew.
type Detach struct {
	Agent *Agent  `json:"agent"`
	Pin   string  `json:"pin"`
	ID    link.ID `json:"id"` // found by Prepare
}

func (d *Detach) String() string { return "link-detached " + d.Pin }

// Prepare finds the link.
func (d *Detach) Prepare(context.Context) error {
	attached, id, err := linkAt(d.Pin)
	if err != nil {
		return err
	}
	if !attached {
		return fmt.Errorf("link %s is attached to nothing", d.Pin)
	}
	d.ID = id
	return nil
}

// linkAt tells what link is pinned at a path, and whether it is attached to something: the kernel sets the number of what
// it was attached to to 0 when it is not.
func linkAt(path string) (attached bool, id link.ID, err error) {
	l, err := link.LoadPinnedLink(path, nil)
	if err != nil {
		return false, 0, fmt.Errorf("open link %s: %w", path, err)
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil {
		return false, 0, fmt.Errorf("read link %s: %w", path, err)
	}
	switch {
	case info.Cgroup() != nil:
		attached = info.Cgroup().CgroupId != 0
	case info.NetNs() != nil:
		attached = info.NetNs().NetnsInode != 0
	case info.TCX() != nil:
		attached = info.TCX().Ifindex != 0
	default:
		return false, 0, fmt.Errorf("link %s is of type %v, which cannot be detached", path, info.Type)
	}
	return attached, info.ID, nil
}

// Inject detaches it.
func (d *Detach) Inject(context.Context) error {
	l, err := link.LoadPinnedLink(d.Pin, nil)
	if err != nil {
		return fmt.Errorf("open link: %w", err)
	}
	defer l.Close()
	if err := l.Detach(); err != nil {
		return fmt.Errorf("detach link: %w", err)
	}
	return nil
}

// Heal restarts the agent if the link is still detached.
func (d *Detach) Heal(ctx context.Context) error {
	attached, _, err := linkAt(d.Pin)
	if err == nil && attached {
		return d.Agent.start(ctx)
	}
	return d.Agent.restart(ctx)
}

// Active is 1 if the link is detached, or was and another one is in its place.
func (d *Detach) Active(context.Context) (uint64, error) {
	attached, id, err := linkAt(d.Pin)
	if err != nil || attached && id == d.ID {
		return 0, err
	}
	return 1, nil
}

// OtherProgram attaches a program that is nobody's to the same hook as an agent's, before or after it: it lets everything
// through and counts. It stays attached as long as this process lives, or until Heal.
type OtherProgram struct {
	Hook string `json:"hook"` // name of the attach type: "connect4"
	// Cgroups are where it is attached. Programs of a cgroup run before those of the ones above it, and within one
	// cgroup in the order in which they came.
	Cgroups []string  `json:"cgroups"`
	Links   []link.ID `json:"links"` // after Inject

	held  []link.Link
	count *ebpf.Map
}

// hooks are the attach types of cgroups that another program can be attached at, by the name that agents pin them under.
var hooks = map[string]struct {
	attach ebpf.AttachType
	kind   ebpf.ProgramType
}{
	"connect4": {ebpf.AttachCGroupInet4Connect, ebpf.CGroupSockAddr}, "connect6": {ebpf.AttachCGroupInet6Connect, ebpf.CGroupSockAddr},
	"sendmsg4": {ebpf.AttachCGroupUDP4Sendmsg, ebpf.CGroupSockAddr}, "sendmsg6": {ebpf.AttachCGroupUDP6Sendmsg, ebpf.CGroupSockAddr},
	"recvmsg4": {ebpf.AttachCGroupUDP4Recvmsg, ebpf.CGroupSockAddr}, "recvmsg6": {ebpf.AttachCGroupUDP6Recvmsg, ebpf.CGroupSockAddr},
	"peername4": {ebpf.AttachCgroupInet4GetPeername, ebpf.CGroupSockAddr}, "peername6": {ebpf.AttachCgroupInet6GetPeername, ebpf.CGroupSockAddr},
	"sock_ops": {ebpf.AttachCGroupSockOps, ebpf.SockOps},
}

func (o *OtherProgram) String() string {
	return fmt.Sprintf("other-program %s at %q", o.Hook, o.Cgroups)
}

// Prepare makes sure that there is such a hook.
func (o *OtherProgram) Prepare(context.Context) error {
	if _, known := hooks[o.Hook]; !known {
		return fmt.Errorf("%w hook %q", ErrUnknown, o.Hook)
	}
	if len(o.Cgroups) == 0 {
		return errors.New("there is no cgroup to attach it to")
	}
	return nil
}

// Inject attaches it.
func (o *OtherProgram) Inject(context.Context) (err error) {
	hook := hooks[o.Hook]
	o.count, err = ebpf.NewMap(&ebpf.MapSpec{Name: "other", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		return fmt.Errorf("make counter: %w", err)
	}
	// *counter += 1; return 1
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "other", Type: hook.kind, AttachType: hook.attach, License: "GPL",
		Instructions: asm.Instructions{
			asm.StoreImm(asm.RFP, -4, 0, asm.Word),
			asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -4),
			asm.LoadMapPtr(asm.R1, o.count.FD()),
			asm.FnMapLookupElem.Call(),
			asm.JEq.Imm(asm.R0, 0, "out"),
			asm.Mov.Imm(asm.R1, 1),
			asm.AddAtomic.Mem(asm.R0, asm.R1, asm.DWord, 0),
			asm.Mov.Imm(asm.R0, 1).WithSymbol("out"), asm.Return(),
		}})
	if err != nil {
		return fmt.Errorf("load program: %w", err)
	}
	defer p.Close()
	for _, cgroup := range o.Cgroups {
		l, err := link.AttachCgroup(link.CgroupOptions{Path: cgroup, Attach: hook.attach, Program: p})
		if err != nil {
			return fmt.Errorf("attach program to %s: %w", cgroup, err)
		}
		o.held = append(o.held, l)
		info, err := l.Info()
		if err != nil {
			return fmt.Errorf("read link: %w", err)
		}
		o.Links = append(o.Links, info.ID)
	}
	return nil
}

// Heal detaches it.
func (o *OtherProgram) Heal(context.Context) error {
	var errs []error
	for _, l := range o.held {
		errs = append(errs, l.Close())
	}
	for _, id := range o.Links {
		l, err := link.NewFromID(id)
		if err != nil {
			continue // it is gone
		}
		if err := l.Detach(); err != nil && !errors.Is(err, unix.ENOLINK) {
			errs = append(errs, fmt.Errorf("detach link %d: %w", id, err))
		}
		l.Close()
	}
	if o.count != nil {
		errs = append(errs, o.count.Close())
	}
	o.held, o.Links, o.count = nil, nil, nil
	return errors.Join(errs...)
}

// Active counts how often it has run.
func (o *OtherProgram) Active(context.Context) (uint64, error) {
	if o.count == nil {
		return 0, nil
	}
	var n uint64
	if err := o.count.Lookup(uint32(0), &n); err != nil {
		return 0, fmt.Errorf("read counter: %w", err)
	}
	return n, nil
}
