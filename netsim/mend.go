// SPDX-License-Identifier: Apache-2.0

package netsim

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// MendPod makes the network of a pod what the lab says, whatever has become of it: link, MTU, addresses, neighbours,
// routes. If its namespace is gone, the pod is made anew, processes and all. enrol tells whether a pod whose link was made
// anew is enrolled again, as a plugin would do it; the link is another one then, and what was attached to it is gone.
func (l *Lab) MendPod(ctx context.Context, name string, enrol bool) error {
	unlock, err := l.change()
	if err != nil {
		return err
	}
	defer unlock()
	pod := l.state.pod(name)
	if pod == nil {
		return fmt.Errorf("pod %s in lab %s: %w", name, l.Name(), ErrNotFound)
	}
	if pod.Spec.HostNetwork {
		return fmt.Errorf("mend pod %s: its network is its node's", name)
	}
	rs := routers{}
	defer rs.close()
	if rs[pod.Spec.Node], err = l.paths.existingRouter(pod.Spec.Node); err != nil {
		return err
	}
	if !isNamespace(l.paths.podNetns(pod)) {
		err = l.remakePods(ctx, rs, []*podState{pod}, enrol)
	} else {
		err = l.mendPod(ctx, rs[pod.Spec.Node], pod, enrol)
	}
	if err != nil {
		return fmt.Errorf("mend pod %s: %w", name, err)
	}
	return l.state.write(l.paths.state())
}

// isNamespace tells whether a namespace is mounted at a path.
func isNamespace(path string) bool {
	var fs unix.Statfs_t
	return unix.Statfs(path, &fs) == nil && fs.Type == unix.NSFS_MAGIC
}

func (l *Lab) mendPod(ctx context.Context, r *router, pod *podState, enrol bool) error {
	n := &l.state.node(pod.Spec.Node).Spec
	anew := false
	err := onThread(func() error {
		if err := enterNamespace(l.paths.podNetns(pod)); err != nil {
			return err
		}
		s, err := newStack()
		if err != nil {
			return err
		}
		defer s.Close()
		near, far := podEnds(pod)
		if anew, err = s.mendPair(r.stack, near, far, int(r.netns.Fd()), defaultMTU); err != nil {
			return err
		}
		if err := s.onlyAddresses(podLink, pod); err != nil {
			return err
		}
		if err := setUpPod(s, r, n, pod, near, far); err != nil {
			return err
		}
		return s.awaitLocal(pod.Addresses)
	})
	if err != nil || !anew || !enrol || !pod.Spec.Enrol {
		return err
	}
	return l.enrolAgain(ctx, []*podState{pod})
}

// mendPair makes sure that a veth is there with both ends, and its MTU. It tells whether it has made it.
func (s stack) mendPair(other stack, near, far end, netns, mtu int) (made bool, err error) {
	link, err := s.LinkByName(near.name)
	farLink, farErr := other.LinkByName(far.name)
	if err != nil || farErr != nil {
		for _, half := range []struct {
			stack
			netlink.Link
		}{{s, link}, {other, farLink}} {
			if half.Link != nil {
				if err := half.LinkDel(half.Link); err != nil && !errors.Is(err, unix.ENODEV) {
					return false, fmt.Errorf("remove what is left of link %s: %w", half.Attrs().Name, err)
				}
			}
		}
		return true, s.pair(near, far, netns, mtu)
	}
	err = errors.Join(s.LinkSetMTU(link, mtu), other.LinkSetMTU(farLink, mtu))
	if err != nil {
		return false, fmt.Errorf("set MTU of link %s: %w", near.name, err)
	}
	return false, nil
}

// onlyAddresses removes addresses that a pod should not have.
func (s stack) onlyAddresses(index int, pod *podState) error {
	link := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}
	has, err := Whole(func() ([]netlink.Addr, error) { return s.AddrList(link, netlink.FAMILY_ALL) })
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range has {
		known := slices.ContainsFunc(pod.Addresses, func(own netip.Addr) bool { return a.IP.Equal(own.AsSlice()) })
		if known || a.IP.IsLinkLocalUnicast() {
			continue
		}
		if err := s.AddrDel(link, &a); err != nil {
			return fmt.Errorf("remove address %s: %w", a.IPNet, err)
		}
	}
	return nil
}

// remakePods makes pods anew, with their processes.
func (l *Lab) remakePods(ctx context.Context, rs routers, pods []*podState, enrol bool) error {
	for _, pod := range pods { // a runtime has the old one withdrawn, also where its namespace is gone
		if err := l.withdrawPods(ctx, pod.Spec.Node, []*podState{pod}); err != nil {
			return err
		}
	}
	if err := l.clearPods(ctx, rs, pods); err != nil {
		return err
	}
	if err := l.paths.makePods(ctx, l.state, rs, pods, func() {}); err != nil {
		return err
	}
	if err := l.reviveServers(ctx, pods); err != nil {
		return err
	}
	if enrol {
		if err := l.enrolAgain(ctx, pods); err != nil {
			return err
		}
	}
	return l.startCommands(pods)
}

// reviveServers starts the servers of pods none of whose processes run.
func (l *Lab) reviveServers(ctx context.Context, pods []*podState) error {
	for _, pod := range pods {
		pod.Processes = nil
		if err := makeDirectory(l.paths.podCgroup(pod), 0o755); err != nil {
			return err
		}
	}
	return l.startServers(ctx, pods, func() {})
}

// enrolAgain enrols pods that may be enrolled already, if there is an agent's data plane to enrol them in.
func (l *Lab) enrolAgain(ctx context.Context, pods []*podState) error {
	if !l.state.Agent.Enabled {
		return nil
	}
	for _, pod := range pods {
		pod.Enrolled = false
	}
	return l.enrolPods(ctx, pods, func() {})
}

// MendWire makes a wire between two nodes, and all routes of the lab, what the lab says.
func (l *Lab) MendWire(_ context.Context, a, b string) error {
	unlock, err := l.change()
	if err != nil {
		return err
	}
	defer unlock()
	ends := (&WireSpec{Between: []string{a, b}}).ends()
	number := slices.IndexFunc(l.state.Wires, func(w *wireState) bool { return w.Ends == ends })
	if number < 0 {
		return fmt.Errorf("wire between %s and %s in lab %s: %w", a, b, l.Name(), ErrNotFound)
	}
	rs, err := l.routers()
	if err != nil {
		return err
	}
	defer rs.close()
	if err := mendWire(rs, l.state.Wires[number]); err != nil {
		return fmt.Errorf("mend wire between %s and %s: %w", a, b, err)
	}
	return route(rs, l.state)
}

// routers opens the namespaces of all nodes.
func (l *Lab) routers() (routers, error) {
	rs := routers{}
	for _, n := range l.state.Nodes {
		r, err := l.paths.existingRouter(n.Spec.Name)
		if err != nil {
			rs.close()
			return nil, err
		}
		rs[n.Spec.Name] = r
	}
	return rs, nil
}

func mendWire(rs routers, w *wireState) error {
	low, high := rs[w.Ends[0]], rs[w.Ends[1]]
	near := end{name: wireName(w.Number), mac: hardwareAddress(sideLow, w.Number)}
	far := end{name: near.name, mac: hardwareAddress(sideHigh, w.Number)}
	if _, err := low.mendPair(high.stack, near, far, int(high.netns.Fd()), w.MTU); err != nil {
		return err
	}
	return setUpWire(rs, w)
}

// Enrol enrols a pod again that is enrolled already, as a plugin that is called a second time does: what is missing of it
// is made. A pod that the lab does not enrol is left alone.
func (l *Lab) Enrol(ctx context.Context, name string) error {
	unlock, err := l.change()
	if err != nil {
		return err
	}
	defer unlock()
	pod := l.state.pod(name)
	if pod == nil {
		return fmt.Errorf("pod %s in lab %s: %w", name, l.Name(), ErrNotFound)
	}
	if !pod.Spec.Enrol {
		return nil
	}
	if err := l.enrolAgain(ctx, []*podState{pod}); err != nil {
		return err
	}
	return l.state.write(l.paths.state())
}
