// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// CheckPlace makes sure that a tree can be at dir, or is: it returns what to do where not. Whoever opens a tree does
// that first, so that a wrong path is called that whatever it was opened for.
func CheckPlace(dir string) error {
	dir = filepath.Clean(dir)
	if strings.Contains(filepath.Base(dir), ".") {
		return fmt.Errorf("pin directory %s: a BPF file system refuses names with a dot", dir)
	}
	parent := filepath.Dir(dir)
	below, err := onBPF(parent)
	switch {
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("pin directory %s: %s is not there: make it, on a BPF file system", dir, parent)
	case err != nil:
		return fmt.Errorf("pin directory %s: look at %s: %w", dir, parent, err)
	}
	at, err := onBPF(dir)
	switch {
	case err != nil && !errors.Is(err, unix.ENOENT):
		return fmt.Errorf("pin directory %s: look at it: %w", dir, err)
	case below && (at || err != nil):
		return nil
	case at:
		return fmt.Errorf("pin directory %s: that is a BPF file system itself: choose a directory below it", dir)
	case dir == usualBPF || strings.HasPrefix(dir, usualBPF+"/"):
		return fmt.Errorf("pin directory %s: no BPF file system is mounted at %s: mount -t bpf bpf %s", dir, usualBPF, usualBPF)
	}
	return fmt.Errorf("pin directory %s: it is not on a BPF file system: choose a directory below one that is mounted, "+
		"such as %s", dir, usualBPF)
}

func onBPF(path string) (bool, error) {
	var fs unix.Statfs_t
	err := unix.Statfs(path, &fs)
	return fs.Type == unix.BPF_FS_MAGIC, err
}

// usualBPF is where systems mount their BPF file system, and the only place where it is right to tell somebody to.
const usualBPF = "/sys/fs/bpf"
