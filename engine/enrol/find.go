// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Sandbox is a network namespace of this machine that may be a pod's.
type Sandbox struct {
	Path      string
	Cookie    uint64
	Addresses []netip.Addr // of global scope, on all its interfaces
	// Attached is whether the other end of its interface is in the caller's network namespace. Another node that is
	// simulated on this machine may have pods of the same addresses.
	Attached bool
}

// Sandboxes lists the network namespaces that have a file in one of dirs, and those that processes are in, the node's
// own left out. One that ends meanwhile is left out, too. A file goes before a process, which may end sooner.
func Sandboxes(dirs ...string) ([]Sandbox, error) {
	var paths []string
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("list network namespaces: %w", err)
		}
		for _, e := range entries {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	processes, err := processNamespaces()
	if err != nil {
		return nil, err
	}
	for _, path := range processes {
		paths = append(paths, path)
	}
	var all []Sandbox
	seen := make(map[uint64]bool)
	for _, path := range paths {
		s, err := lookAt(path, seen)
		if err != nil {
			return nil, err
		}
		if s != nil {
			all = append(all, *s)
		}
	}
	return all, nil
}

// lookAt returns nil for what is no sandbox, or one that was seen.
func lookAt(path string, seen map[uint64]bool) (*Sandbox, error) {
	ns, err := openNetns(path)
	if err != nil {
		return nil, nil // another file, or it is gone
	}
	defer ns.Close()
	if node, err := isNode(ns); node || err != nil {
		return nil, err
	}
	s := &Sandbox{Path: path}
	var handle *netlink.Handle
	err = inside(ns, func() (err error) {
		if s.Cookie, err = threadCookie(); err != nil || seen[s.Cookie] {
			return err
		}
		handle, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look into namespace %s: %w", path, err)
	}
	if seen[s.Cookie] {
		return nil, nil
	}
	seen[s.Cookie] = true
	defer handle.Close()
	found, err := candidates(handle)
	if err != nil {
		return nil, fmt.Errorf("look into namespace %s: %w", path, err)
	}
	for _, c := range found {
		s.Addresses = append(append(s.Addresses, c.ip4...), c.ip6...)
	}
	if len(found) == 0 {
		return s, nil
	}
	n := &network{}
	if err := n.choose(handle); err != nil {
		return nil, fmt.Errorf("look into namespace %s: %w", path, err)
	}
	if err := n.findHost(ns); err != nil {
		return nil, fmt.Errorf("find the node's end of interface %s of namespace %s: %w", n.name, path, err)
	}
	s.Attached = n.host != 0
	return s, nil
}
