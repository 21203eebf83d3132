// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Replace writes a file so that a reader, and a machine that loses power, finds the old one or the new one, whole: it
// is written beside, flushed, and renamed over. A symbolic link is replaced, not followed. What earlier writers of the
// same file have left beside it, because they were killed, is removed.
func Replace(path string, data []byte, mode fs.FileMode) error {
	if err := sweep(path); err != nil {
		return fmt.Errorf("remove what was left beside %s: %w", path, err)
	}
	f, lock, err := createBeside(path)
	if err != nil {
		return err
	}
	defer lock.Close()
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()) // what is still open for writing cannot be executed
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return SyncDir(filepath.Dir(path))
}

// beside is the pattern of the files that become path. Whoever writes one has a lock on it: without one its writer is
// dead.
func beside(path, which string) string { return "." + filepath.Base(path) + "." + which + ".new" }

// createBeside makes a file to be renamed, and a descriptor that holds the lock on it.
func createBeside(path string) (f, lock *os.File, err error) {
	for {
		if f, err = os.CreateTemp(filepath.Dir(path), beside(path, "*")); err != nil {
			return nil, nil, err
		}
		lock, err = lockFile(f.Name())
		if err == nil && lock != nil {
			return f, lock, nil
		}
		f.Close()
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // or else it was swept before it had a lock
			return nil, nil, errors.Join(err, os.Remove(f.Name()))
		}
	}
}

// sweep removes the files that were to become path and that nobody writes any more.
func sweep(path string) error {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if left, err := filepath.Match(beside(path, "*"), e.Name()); err != nil || !left || !e.Type().IsRegular() {
			continue
		}
		name := filepath.Join(filepath.Dir(path), e.Name())
		lock, err := lockFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it was renamed meanwhile
		}
		if err != nil {
			return err
		}
		if lock == nil {
			continue
		}
		err = os.Remove(name)
		lock.Close()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// lockFile locks the file that has a name; it returns nil if another has that lock, fs.ErrNotExist if the file has lost
// its name when it is locked.
func lockFile(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		var opened, named fs.FileInfo
		if opened, err = f.Stat(); err == nil {
			if named, err = os.Lstat(name); err == nil && !os.SameFile(opened, named) {
				err = fs.ErrNotExist
			}
		}
		if err == nil {
			return f, nil
		}
	}
	f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, nil
	}
	return nil, err
}

// SyncDir makes the names in a directory outlast a loss of power.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
