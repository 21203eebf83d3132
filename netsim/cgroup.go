// SPDX-License-Identifier: Apache-2.0

package netsim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// findCgroup2 returns where the unified hierarchy is mounted: /sys/fs/cgroup, or beside version 1 somewhere below.
func findCgroup2() (string, error) {
	mounts, err := readMounts()
	if err != nil {
		return "", err
	}
	return cgroup2Among(mounts)
}

func cgroup2Among(mounts []mount) (string, error) {
	for _, m := range mounts {
		if m.fstype == "cgroup2" && m.root == "/" {
			return m.point, nil
		}
	}
	return "", errors.New("cgroup2 is not mounted: run mount -t cgroup2 none /sys/fs/cgroup")
}

func makeDirectory(path string, mode fs.FileMode) error {
	var err error
	for range 100 {
		if err = os.MkdirAll(path, mode); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("create directory: %w", err)
	}
	return nil
}

// killCgroup ends every process in a cgroup and below, and waits until they are gone (cgroup.kill: kernel 5.14).
func killCgroup(ctx context.Context, path string) error {
	err := os.WriteFile(filepath.Join(path, "cgroup.kill"), []byte("1"), 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("kill processes of cgroup: %w", err)
	}
	return waitEmpty(ctx, path)
}

// waitEmpty returns when no process is left in a cgroup and below. Processes that have ended do not count, even if
// nobody has waited for them.
func waitEmpty(ctx context.Context, path string) error {
	name := filepath.Join(path, "cgroup.events")
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", name, err)
	}
	defer unix.Close(fd)
	text := make([]byte, 256)
	for {
		n, err := unix.Pread(fd, text, 0)
		if errors.Is(err, unix.ENODEV) { // removed meanwhile
			return nil
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		if bytes.Contains(text[:n], []byte("populated 0")) {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("wait for processes of cgroup %s: %w", path, ctx.Err())
		}
		const tick = 50 // milliseconds until the context is asked again
		if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}}, tick); err != nil &&
			!errors.Is(err, unix.EINTR) {
			return fmt.Errorf("watch %s: %w", name, err)
		}
	}
}

// removeCgroup removes an empty cgroup and those below.
func removeCgroup(path string) error {
	var all []string
	err := filepath.WalkDir(path, func(at string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			all = append(all, at)
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list cgroups: %w", err)
	}
	for _, at := range slices.Backward(all) {
		if err := unix.Rmdir(at); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("remove cgroup %s: %w", at, err)
		}
	}
	return nil
}
