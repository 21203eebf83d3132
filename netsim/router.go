// SPDX-License-Identifier: Apache-2.0

package netsim

import (
	"fmt"
	"os"
)

// router is a node's namespace while pods and wires are connected to it.
type router struct {
	stack
	netns *os.File
}

// newRouter makes the namespace of a node and gives it the node's addresses.
func (p paths) newRouter(n *NodeSpec) (r *router, err error) {
	err = onThread(func() error {
		if err := newNamespace(p.nodeNetns(n.Name)); err != nil {
			return err
		}
		for name, value := range map[string]string{
			"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1",
			// Links of a node come with this, see quiet.
			"ipv6/conf/default/addr_gen_mode": "1",
			// With a wire in each direction the way back may be another one.
			"ipv4/conf/all/rp_filter": "0", "ipv4/conf/default/rp_filter": "0",
		} {
			if err := writeSysctl(name, value); err != nil {
				return err
			}
		}
		if r, err = p.openRouter(n.Name); err != nil {
			return err
		}
		if err := r.up("lo", loopback); err != nil {
			return err
		}
		for _, a := range n.addresses(nodeOrdinal) {
			if err := r.address(loopback, a); err != nil {
				return err
			}
		}
		return p.showNode(n.Name)
	})
	if err != nil {
		r.close()
		return nil, fmt.Errorf("make node %s: %w", n.Name, err)
	}
	return r, nil
}

// openRouter opens a node's namespace, which the calling thread is in.
func (p paths) openRouter(node string) (*router, error) {
	netns, err := os.Open(p.nodeNetns(node))
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	s, err := newStack()
	if err != nil {
		netns.Close()
		return nil, err
	}
	return &router{s, netns}, nil
}

// existingRouter opens the namespace of a node that there is.
func (p paths) existingRouter(node string) (r *router, err error) {
	err = onThread(func() error {
		if err := enterNamespace(p.nodeNetns(node)); err != nil {
			return err
		}
		r, err = p.openRouter(node)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("enter node %s: %w", node, err)
	}
	return r, nil
}

func (r *router) close() {
	if r != nil {
		r.Close()
		r.netns.Close()
	}
}

// routers are nodes by name.
type routers map[string]*router

func (rs routers) close() {
	for _, r := range rs {
		r.close()
	}
}
