// SPDX-License-Identifier: Apache-2.0

package netsim

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ErrBusy is returned where another process is changing the lab.
var ErrBusy = errors.New("another process is changing it")

// lockDirectory takes a flock on a directory. With LOCK_NB it returns ErrBusy rather than wait. The lock ends with the
// process at the latest. A child that is about to call execve(2) has the file descriptor, too, so closing it does not
// give the lock back at once; unlocking does.
func lockDirectory(path string, how int) (unlock func(), err error) {
	fd, err := unix.Open(path, unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	for {
		err = unix.Flock(fd, how)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		unix.Close(fd)
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrBusy
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() {
		_ = unix.Flock(fd, unix.LOCK_UN) // cannot fail on a lock that is held
		unix.Close(fd)
	}, nil
}

// lock takes the right to change the lab. The directory that was locked must be the one that is there afterwards:
// whoever held the lock before may have removed it. It returns fs.ErrNotExist if there is no lab, ErrBusy if another
// process changes it.
func (p paths) lock() (unlock func(), err error) {
	for {
		var before, after unix.Stat_t
		if err := unix.Stat(p.dir(), &before); err != nil {
			return nil, &os.PathError{Op: "find", Path: p.dir(), Err: err}
		}
		unlock, err := lockDirectory(p.dir(), unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, ErrBusy) && p.abandoned() {
			unlock, err = lockDirectory(p.dir(), unix.LOCK_EX)
		}
		if err != nil {
			return nil, err
		}
		if unix.Stat(p.dir(), &after) == nil && before.Ino == after.Ino {
			return unlock, nil
		}
		unlock()
	}
}

// abandoned tells whether the process that last changed the lab has ended. If the lock is held all the same, then by a
// child that it had forked and that has yet to call execve(2), which lets go of it.
func (p paths) abandoned() bool {
	last, err := p.lastEntry()
	return err == nil && last != nil && !last.By.Alive()
}
