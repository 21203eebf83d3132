// SPDX-License-Identifier: Apache-2.0

package netsim

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// showNode makes a link to a node's namespace where iproute2 and other tools look for names. Pods have none: where /run
// is on a disk, a link costs as much as half of a pod.
func (p paths) showNode(node string) error {
	if err := makeDirectory(netnsRoot, 0o755); err != nil {
		return err
	}
	if err := os.Symlink(p.nodeNetns(node), p.shownNetns(node)); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("show network namespace: %w", err)
	}
	return nil
}

// hideNode removes the link.
func (p paths) hideNode(node string) error {
	if err := os.Remove(p.shownNetns(node)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("hide network namespace: %w", err)
	}
	return nil
}

// hideNodes removes all links of the lab. It must come before the namespaces are unmounted, which is what names the
// links.
func (p paths) hideNodes() error {
	entries, err := os.ReadDir(p.namespaces())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list network namespaces: %w", err)
	}
	for _, entry := range entries {
		if strings.Contains(entry.Name(), "_") {
			continue // a pod
		}
		if err := p.hideNode(entry.Name()); err != nil {
			return err
		}
	}
	return nil
}
