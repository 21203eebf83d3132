// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// takeOverTime bounds how long a take-over waits for a killed holder to be gone. The kernel frees the lock when the
// last descriptor of it is closed, so a child of the holder may keep it longer.
const takeOverTime = 5 * time.Second

// takeLease locks the tree's directory for this process. The kernel frees the lock when the process dies, however it
// does. It returns a [HeldError] if another has it, unless that is the incumbent, which is killed then; and if it was
// killed, but a third process was faster. So of several that replace one process only the first kills anybody.
func takeLease(ctx context.Context, path string, incumbent *Holder) (*os.File, error) {
	dir, err := tryLease(path)
	var held *HeldError
	if err == nil || !errors.As(err, &held) || incumbent == nil || held.PID != incumbent.PID || held.PID == os.Getpid() {
		return dir, err
	}
	late := fmt.Errorf("%v after pid %d was killed the lock is still held: look for its children", takeOverTime, held.PID)
	ctx, cancel := context.WithTimeoutCause(ctx, takeOverTime, late)
	defer cancel()
	if err := kill(ctx, path, held.PID); err != nil {
		return nil, fmt.Errorf("take over %s: %w", path, err)
	}
	return inherit(ctx, path, held.PID)
}

// inherit takes the lease when the lock of a killed holder is free.
func inherit(ctx context.Context, path string, killed int) (*os.File, error) {
	tick := time.NewTicker(retry)
	defer tick.Stop()
	for {
		dir, err := tryLease(path)
		var held *HeldError
		if !errors.As(err, &held) {
			return dir, err
		}
		// The kernel names the process that took the lock, also while nothing but a child of it keeps that; it names
		// none where it cannot.
		if held.PID != killed && held.PID != 0 {
			return nil, held
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("take over %s: %w", path, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// tryLease locks the directory, or says who has. A holder that goes between the two is not there to be named, which
// looks as if it were outside this PID namespace: only if that is so again and again it is.
func tryLease(path string) (*os.File, error) {
	const looks = 8
	for nameless := 0; ; {
		dir, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		err = unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case errors.Is(err, unix.EWOULDBLOCK):
			pid, err := holder(dir)
			dir.Close()
			if err != nil {
				return nil, err
			}
			if nameless++; pid == 0 && nameless < looks {
				continue
			}
			return nil, &HeldError{Dir: path, PID: pid, Command: command(pid)}
		case err != nil:
			dir.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		case same(dir, path):
			return dir, nil
		}
		dir.Close() // an uninstall removed it before the lock was taken
	}
}

// kill ends the process that holds the lease and waits until it is gone. The descriptor pins which process is meant:
// if the number was given to another meanwhile, /proc/locks no longer names it.
func kill(ctx context.Context, path string, pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open pid %d: %w", pid, err)
	}
	defer unix.Close(fd)
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	now, err := holder(dir)
	if err != nil {
		return err
	}
	if now != pid {
		return nil // it is gone, or another has it: the lock tells
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill pid %d: %w", pid, err)
	}
	for {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("wait for pid %d to die: %w", pid, context.Cause(ctx))
		}
		const slice = 20 // milliseconds, so that the context is looked at
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, slice)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for pid %d to die: %w", pid, err)
		}
		if n > 0 {
			return nil
		}
	}
}

// command is the command line of a process, as far as it can be read.
func command(pid int) string {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return ""
	}
	return string(bytes.TrimRight(bytes.ReplaceAll(line, []byte{0}, []byte{' '}), " "))
}
