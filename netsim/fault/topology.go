// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/netsim"
)

// Link is a link of a lab: that of a pod, or a wire. Its lab mends it.
type Link struct {
	Agent *Agent `json:"agent"` // whose node it is of; for the lab
	// Pod is "namespace/name"; Wire are two nodes. One of them is set.
	Pod  string    `json:"pod,omitempty"`
	Wire [2]string `json:"wire"`
	// Netns and Name are where the end is that is harmed.
	Netns string `json:"netns"`
	Name  string `json:"name"`
}

func (l *Link) String() string {
	if l.Pod != "" {
		return "pod/" + l.Pod
	}
	return "wire/" + l.Wire[0] + "," + l.Wire[1]
}

// handle opens the namespace of the end.
func (l *Link) handle() (*netlink.Handle, error) {
	ns, err := netns.GetFromPath(l.Netns)
	if err != nil {
		return nil, fmt.Errorf("open network namespace %s: %w", l.Netns, err)
	}
	defer ns.Close()
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink in %s: %w", l.Netns, err)
	}
	return h, nil
}

// do runs fn with the end; link is nil if there is none.
func (l *Link) do(fn func(h *netlink.Handle, link netlink.Link) error) error {
	h, err := l.handle()
	if err != nil {
		return err
	}
	defer h.Close()
	link, err := h.LinkByName(l.Name)
	var gone netlink.LinkNotFoundError
	if err != nil && !errors.As(err, &gone) {
		return fmt.Errorf("find link %s: %w", l.Name, err)
	}
	if err != nil {
		link = nil
	}
	if err := fn(h, link); err != nil {
		return fmt.Errorf("link %s of %v: %w", l.Name, l, err)
	}
	return nil
}

// must is do for a link that has to be there.
func (l *Link) must(fn func(h *netlink.Handle, link netlink.Link) error) error {
	return l.do(func(h *netlink.Handle, link netlink.Link) error {
		if link == nil {
			return fs.ErrNotExist
		}
		return fn(h, link)
	})
}

// mend has the lab make it right. A lab that is gone needs nothing.
func (l *Link) mend(ctx context.Context, enrol bool) error {
	lab, err := l.Agent.open()
	if errors.Is(err, netsim.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return patient(ctx, func() error {
		if l.Pod != "" {
			return lab.MendPod(ctx, l.Pod, enrol)
		}
		return lab.MendWire(ctx, l.Wire[0], l.Wire[1])
	})
}

// LinkDown sets an end of a link down. The kernel drops its routes and IPv6 addresses with that.
type LinkDown struct{ Link }

func (l *LinkDown) String() string { return "link-down " + l.Link.String() }

// Prepare makes sure that it is up.
func (l *LinkDown) Prepare(context.Context) error {
	return l.must(func(_ *netlink.Handle, link netlink.Link) error {
		if link.Attrs().Flags&net.FlagUp == 0 {
			return errors.New("it is down already")
		}
		return nil
	})
}

// Inject sets it down.
func (l *LinkDown) Inject(context.Context) error {
	return l.must(func(h *netlink.Handle, link netlink.Link) error { return h.LinkSetDown(link) })
}

// Heal sets it up, and what it lost.
func (l *LinkDown) Heal(ctx context.Context) error { return l.mend(ctx, true) }

// Active is 1 while it is down or gone.
func (l *LinkDown) Active(context.Context) (n uint64, err error) {
	err = l.do(func(_ *netlink.Handle, link netlink.Link) error {
		if link == nil || link.Attrs().Flags&net.FlagUp == 0 {
			n = 1
		}
		return nil
	})
	return n, err
}

// LinkAnew deletes a pod's link and makes another one of the same names: another interface to everything that was
// attached to it. Healing enrols the pod again, as its plugin would.
type LinkAnew struct {
	Link
	Index int `json:"index"` // of the node's end, before
}

func (l *LinkAnew) String() string { return "link-recreated " + l.Link.String() }

func (l *LinkAnew) index() (index int, err error) {
	err = l.do(func(_ *netlink.Handle, link netlink.Link) error {
		if link != nil {
			index = link.Attrs().Index
		}
		return nil
	})
	return index, err
}

// Prepare notes the interface index.
func (l *LinkAnew) Prepare(context.Context) (err error) {
	if l.Index, err = l.index(); err == nil && l.Index == 0 {
		err = fmt.Errorf("link %s of %v: %w", l.Name, l.Link.String(), fs.ErrNotExist)
	}
	return err
}

// Inject returns when the new link is there.
func (l *LinkAnew) Inject(ctx context.Context) error {
	err := l.must(func(h *netlink.Handle, link netlink.Link) error { return h.LinkDel(link) })
	if err != nil {
		return err
	}
	return l.mend(ctx, false)
}

// Heal makes the link if it is missing, and enrols the pod.
func (l *LinkAnew) Heal(ctx context.Context) error {
	if err := l.mend(ctx, true); err != nil || l.Pod == "" {
		return err
	}
	lab, err := l.Agent.open()
	if errors.Is(err, netsim.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return patient(ctx, func() error { return lab.Enrol(ctx, l.Pod) })
}

// Active is 1 if the link is another one or gone.
func (l *LinkAnew) Active(context.Context) (uint64, error) {
	index, err := l.index()
	if err != nil || index == l.Index {
		return 0, err
	}
	return 1, nil
}

// LinkMTU makes both ends of a link carry less.
type LinkMTU struct {
	Link
	MTU int `json:"mtu"` // bytes
}

func (l *LinkMTU) String() string { return fmt.Sprintf("link-mtu %s mtu=%d", l.Link.String(), l.MTU) }

// Prepare makes sure that it carries more.
func (l *LinkMTU) Prepare(context.Context) error {
	return l.must(func(_ *netlink.Handle, link netlink.Link) error {
		if link.Attrs().MTU <= l.MTU {
			return fmt.Errorf("its MTU is %d", link.Attrs().MTU)
		}
		return nil
	})
}

// Inject sets the MTU of the end; what comes from the other one is not refused by it.
func (l *LinkMTU) Inject(context.Context) error {
	return l.must(func(h *netlink.Handle, link netlink.Link) error { return h.LinkSetMTU(link, l.MTU) })
}

// Heal sets what the lab says.
func (l *LinkMTU) Heal(ctx context.Context) error { return l.mend(ctx, true) }

// Active is the MTU while it is the low one.
func (l *LinkMTU) Active(context.Context) (n uint64, err error) {
	err = l.do(func(_ *netlink.Handle, link netlink.Link) error {
		if link != nil && link.Attrs().MTU == l.MTU {
			n = uint64(l.MTU)
		}
		return nil
	})
	return n, err
}

// Renumber takes an address from a pod and gives it another one, which nobody knows.
type Renumber struct {
	Link
	From netip.Addr `json:"from"`
	To   netip.Addr `json:"to"`
}

func (r *Renumber) String() string {
	return fmt.Sprintf("address-changed %s from %s to %s", r.Link.String(), r.From, r.To)
}

func (r *Renumber) has(address netip.Addr) (has bool, err error) {
	err = r.must(func(h *netlink.Handle, link netlink.Link) error {
		all, err := netsim.Whole(func() ([]netlink.Addr, error) { return h.AddrList(link, netlink.FAMILY_ALL) })
		for _, a := range all {
			has = has || a.IP.Equal(address.AsSlice())
		}
		return err
	})
	return has, err
}

// Prepare makes sure that it has the address.
func (r *Renumber) Prepare(context.Context) error {
	has, err := r.has(r.From)
	if err == nil && !has {
		err = fmt.Errorf("%s does not have address %s", r.Link.String(), r.From)
	}
	return err
}

func single(a netip.Addr) *netlink.Addr {
	n := &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}}
	if a.Is6() {
		n.Flags = unix.IFA_F_NODAD
	}
	return n
}

// Inject changes the address.
func (r *Renumber) Inject(context.Context) error {
	return r.must(func(h *netlink.Handle, link netlink.Link) error {
		return errors.Join(h.AddrAdd(link, single(r.To)), h.AddrDel(link, single(r.From)))
	})
}

// Heal changes it back.
func (r *Renumber) Heal(ctx context.Context) error { return r.mend(ctx, true) }

// Active is 1 while the pod does not have its address.
func (r *Renumber) Active(context.Context) (uint64, error) {
	has, err := r.has(r.From)
	if err != nil || has {
		return 0, err
	}
	return 1, nil
}

// DeleteNetns deletes the network namespace of a pod while it is in use: its processes are killed and its name is gone;
// whoever else holds it keeps it. Nobody withdraws the pod. Healing makes the pod anew.
type DeleteNetns struct {
	Link
	Cgroup string `json:"cgroup"` // of the pod's processes
	Inode  uint64 `json:"inode"`  // of the namespace
}

func (d *DeleteNetns) String() string { return "netns-deleted " + d.Link.String() }

// Prepare notes which namespace it is.
func (d *DeleteNetns) Prepare(context.Context) (err error) {
	if d.Inode, err = inodeOf(d.Netns); err == nil && d.Inode == 0 {
		err = fmt.Errorf("network namespace %s: %w", d.Netns, fs.ErrNotExist)
	}
	return err
}

// Inject deletes it.
func (d *DeleteNetns) Inject(context.Context) error {
	if err := os.WriteFile(filepath.Join(d.Cgroup, "cgroup.kill"), []byte("1"), 0); err != nil {
		return fmt.Errorf("kill processes of pod: %w", err)
	}
	if err := unix.Unmount(d.Netns, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", d.Netns, err)
	}
	if err := os.Remove(d.Netns); err != nil {
		return fmt.Errorf("remove name of namespace: %w", err)
	}
	return nil
}

// Heal makes the pod anew.
func (d *DeleteNetns) Heal(ctx context.Context) error { return d.mend(ctx, true) }

// Active is 1 if the namespace is gone, or another one has its name.
func (d *DeleteNetns) Active(context.Context) (uint64, error) {
	inode, err := inodeOf(d.Netns)
	if err != nil || inode == d.Inode {
		return 0, err
	}
	return 1, nil
}

// Reboot loses what a node loses in a reboot and has it come up in an order.
type Reboot struct {
	Agent *Agent            `json:"agent"`
	Order []netsim.BootStep `json:"order"`
	Netns string            `json:"netns"`
	Inode uint64            `json:"inode"` // of the node's namespace, before
	Done  bool              `json:"done"`
}

func (r *Reboot) String() string {
	return fmt.Sprintf("reboot node/%s order=%v", r.Agent.Node, r.Order)
}

// Prepare notes which boot this is.
func (r *Reboot) Prepare(context.Context) (err error) {
	r.Inode, err = inodeOf(r.Netns)
	return err
}

// Inject returns when the node is up.
func (r *Reboot) Inject(ctx context.Context) error {
	lab, err := r.Agent.open()
	if err != nil {
		return err
	}
	if err := r.reboot(ctx, lab); err != nil {
		return err
	}
	r.Done = true
	return nil
}

// Heal reboots the node again if it did not come up.
func (r *Reboot) Heal(ctx context.Context) error {
	lab, err := r.Agent.open()
	if errors.Is(err, netsim.ErrNotFound) {
		return nil
	}
	if err != nil || r.Done {
		return err
	}
	inode, err := inodeOf(r.Netns)
	if err != nil || inode == r.Inode {
		return err // it was not begun
	}
	return r.reboot(ctx, lab)
}

func (r *Reboot) reboot(ctx context.Context, lab *netsim.Lab) error {
	return patient(ctx, func() error { return lab.Reboot(ctx, r.Agent.Node, r.Order) })
}

// Active is 1 if it is another boot.
func (r *Reboot) Active(context.Context) (uint64, error) { return wasRemoved(r.Netns, r.Inode) }
