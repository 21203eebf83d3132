// SPDX-License-Identifier: Apache-2.0

package netsim

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// workers is how many threads make pods. The kernel makes links one at a time, so more gain nothing.
const workers = 2

// podLink is the index of eth0 in a pod and is free there: lo is 1.
const podLink = 2

// makePods makes pods, several at a time. Pods on hostNetwork have nothing to be made.
func (p paths) makePods(ctx context.Context, s *state, rs routers, pods []*podState, done func()) error {
	group, running := errgroup.WithContext(ctx)
	group.SetLimit(workers)
	var await errgroup.Group
	made := make(chan madePod, 64) // that many may wait for the kernel while others are made
	await.Go(func() error { return awaitPods(made, done) })
	for _, pod := range pods {
		if pod.Spec.HostNetwork {
			continue
		}
		if running.Err() != nil {
			break
		}
		group.Go(func() error {
			st, err := p.newPod(rs[pod.Spec.Node], &s.node(pod.Spec.Node).Spec, pod)
			if err == nil {
				made <- madePod{st, pod}
			}
			return err
		})
	}
	err := group.Wait()
	close(made)
	if err := errors.Join(err, await.Wait()); err != nil {
		return err
	}
	return ctx.Err()
}

// madePod is a pod that is connected; its stack is still open.
type madePod struct {
	stack
	pod *podState
}

// awaitPods closes the stacks of pods once their addresses can be reached. It takes all, also after an error.
func awaitPods(made <-chan madePod, done func()) error {
	var failed error
	for m := range made {
		if failed == nil {
			if failed = m.awaitLocal(m.pod.Addresses); failed != nil {
				failed = fmt.Errorf("make pod %s: %w", m.pod.Spec.key(), failed)
			}
			done()
		}
		m.Close()
	}
	return failed
}

// podLinkName is the node's end of a pod's link.
func podLinkName(ordinal int) string { return fmt.Sprintf("pod%d", ordinal) }

// newPod makes the namespace of a pod and connects it to its node. The caller closes the stack.
func (p paths) newPod(r *router, n *NodeSpec, pod *podState) (s stack, err error) {
	err = onThread(func() error {
		if err := newNamespace(p.podNetns(pod)); err != nil {
			return err
		}
		if s, err = newStack(); err != nil {
			return err
		}
		return connectPod(s, r, n, pod)
	})
	if err != nil {
		if s.Handle != nil {
			s.Close()
		}
		return stack{}, fmt.Errorf("make pod %s: %w", pod.Spec.key(), err)
	}
	return s, nil
}

// podEnds are the ends of a pod's link: the pod's and the node's.
func podEnds(pod *podState) (near, far end) {
	return end{"eth0", podLink, hardwareAddress(sidePod, pod.Ordinal)},
		end{name: podLinkName(pod.Ordinal), mac: hardwareAddress(sideNode, pod.Ordinal)}
}

func connectPod(s stack, r *router, n *NodeSpec, pod *podState) error {
	if err := s.up("lo", loopback); err != nil {
		return err
	}
	near, far := podEnds(pod)
	if err := s.pair(near, far, int(r.netns.Fd()), defaultMTU); err != nil {
		return err
	}
	return setUpPod(s, r, n, pod, near, far)
}

// setUpPod gives both ends of a pod's link what they need. What is there already stays.
func setUpPod(s stack, r *router, n *NodeSpec, pod *podState, near, far end) error {
	if err := s.quiet(near.name, podLink); err != nil {
		return err
	}
	if err := s.up(near.name, podLink); err != nil {
		return err
	}
	for _, a := range pod.Addresses {
		if err := s.address(podLink, a); err != nil {
			return err
		}
		if err := s.neighbour(podLink, gatewayFor(a), far.mac); err != nil {
			return err
		}
		if err := s.via(podLink, netip.PrefixFrom(unspecified(a), 0), netip.Addr{}); err != nil {
			return err
		}
	}
	link, err := r.LinkByName(far.name)
	if err != nil {
		return fmt.Errorf("find link %s: %w", far.name, err)
	}
	index := link.Attrs().Index
	if err := r.up(far.name, index); err != nil {
		return err
	}
	own := n.addresses(nodeOrdinal)
	for i, a := range pod.Addresses {
		if err := r.neighbour(index, a, near.mac); err != nil {
			return err
		}
		if err := r.direct(index, a, own[i]); err != nil {
			return err
		}
	}
	return nil
}

func gatewayFor(a netip.Addr) netip.Addr {
	if a.Is4() {
		return gateway4
	}
	return gateway6
}

func unspecified(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// removePod takes a pod's namespace away. Its link goes at once, because the pod's name may come back before the kernel
// has taken the namespace apart.
func (p paths) removePod(r *router, pod *podState) error {
	if link, err := r.LinkByName(podLinkName(pod.Ordinal)); err == nil {
		// ENODEV: the kernel has come to it meanwhile, because the other end is gone.
		if err := r.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("remove link of pod %s: %w", pod.Spec.key(), err)
		}
	}
	return removeNamespace(p.podNetns(pod))
}
