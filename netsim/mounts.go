// SPDX-License-Identifier: Apache-2.0

package netsim

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// mount is a line of /proc/self/mountinfo (proc(5)).
type mount struct{ root, point, fstype string }

func readMounts() ([]mount, error) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	defer file.Close()
	mounts, err := parseMounts(file)
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	return mounts, nil
}

func parseMounts(text io.Reader) ([]mount, error) {
	var mounts []mount
	lines := bufio.NewScanner(text)
	for lines.Scan() {
		before, after, _ := strings.Cut(lines.Text(), " - ")
		fields, source := strings.Fields(before), strings.Fields(after)
		if len(fields) > 4 && len(source) > 0 {
			mounts = append(mounts, mount{fields[3], unescape.Replace(fields[4]), source[0]})
		}
	}
	return mounts, lines.Err()
}

// unescape undoes what the kernel writes for the characters that would break a line apart.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// mountBPF makes sure that a bpffs is at /sys/fs/bpf. It stays: others may have pinned something by the time that this
// lab ends. The lock keeps two labs from mounting it twice.
func mountBPF() error {
	unlock, err := lockDirectory(stateRoot, unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer unlock()
	var fs unix.Statfs_t
	if err := unix.Statfs(bpffsRoot, &fs); err != nil {
		return fmt.Errorf("look at %s: %w", bpffsRoot, err)
	}
	if fs.Type == unix.BPF_FS_MAGIC {
		return nil
	}
	if err := unix.Mount("bpffs", bpffsRoot, "bpf", 0, "mode=0700"); err != nil {
		return fmt.Errorf("mount bpffs at %s: %w", bpffsRoot, err)
	}
	return nil
}

// mountPins gives a lab a bpffs of its own, below the one of the machine: it can be unmounted, as by a mistake on a real
// node, and nobody else loses anything.
func mountPins(dir string) error {
	if err := makeDirectory(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("evenkeel-sim", dir, "bpf", 0, "mode=0755"); err != nil {
		return fmt.Errorf("mount bpffs at %s: %w", dir, err)
	}
	// In other mount namespaces it would keep what is pinned alive.
	if err := unix.Mount("", dir, "", unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make %s private: %w", dir, err)
	}
	return nil
}

// mountNamespaces puts one file system under all namespaces of a lab, so that one unmount releases them together: a
// thousand unmounts would each wait for a grace period.
func mountNamespaces(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return fmt.Errorf("create directory of namespaces: %w", err)
	}
	if err := unix.Mount("evenkeel-sim", dir, "tmpfs", 0, "mode=0755,size=64k,nr_inodes=0"); err != nil {
		return fmt.Errorf("mount tmpfs at %s: %w", dir, err)
	}
	// Below a shared mount every namespace would be mounted in all other mount namespaces, too, and outlive the lab there.
	if err := unix.Mount("", dir, "", unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make %s private: %w", dir, err)
	}
	return nil
}

// unmountAll unmounts whatever is mounted at a directory: with it go all namespaces of a lab, or all of its pins.
func unmountAll(dir string) error {
	for { // more than once only if somebody has mounted over it
		err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("unmount %s: %w", dir, err)
		}
	}
}
