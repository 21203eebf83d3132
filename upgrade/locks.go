// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// retry is how often a lock that somebody holds is tried again: flock(2) itself cannot be told to give up.
const retry = 5 * time.Millisecond

// openLocked opens a directory and takes a lock on it (LOCK_EX or LOCK_SH), waiting for it as long as ctx lives. A
// directory may be removed while somebody waits for it, and made again: the lock that is returned is on what the path
// names now, or the error is fs.ErrNotExist.
func openLocked(ctx context.Context, path string, how int) (*os.File, error) {
	for {
		dir, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		err = flock(ctx, dir, how)
		if err != nil {
			dir.Close()
			return nil, err
		}
		if same(dir, path) {
			return dir, nil
		}
		dir.Close()
	}
}

func flock(ctx context.Context, dir *os.File, how int) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("lock %s: %w", dir.Name(), context.Cause(ctx))
		case <-timer.C:
		}
		err := unix.Flock(int(dir.Fd()), how|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return err
		}
		timer.Reset(retry)
	}
}

// same reports whether path still names the open directory.
func same(dir *os.File, path string) bool {
	mine, err := dir.Stat()
	if err != nil {
		return false
	}
	now, err := os.Stat(path)
	return err == nil && os.SameFile(mine, now)
}

// holder finds who holds a lock on the open directory; 0 if nobody does or the holder is in a PID namespace that this
// process does not see.
func holder(dir *os.File) (int, error) {
	var stat unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &stat); err != nil {
		return 0, fmt.Errorf("find holder of %s: %w", dir.Name(), err)
	}
	locks, err := os.Open("/proc/locks")
	if err != nil {
		return 0, fmt.Errorf("find holder of %s: %w", dir.Name(), err)
	}
	defer locks.Close()
	pid, err := parseLocks(locks, stat.Dev, stat.Ino)
	if err != nil {
		return 0, fmt.Errorf("find holder of %s: %w", dir.Name(), err)
	}
	return pid, nil
}

// parseLocks finds in the text of /proc/locks (proc_locks(5)) the process that holds an exclusive flock(2) on a file.
// Lines look like
//
//	1: FLOCK  ADVISORY  WRITE 4711 00:2a:1234 0 EOF
//
// with the device's numbers in hexadecimal and the inode in decimal; those who wait have "->" after the number. Lines
// of any other form are other kinds of locks, or of kernels to come, and are passed over.
func parseLocks(text io.Reader, device, inode uint64) (int, error) {
	want := fmt.Sprintf("%02x:%02x:%d", unix.Major(device), unix.Minor(device), inode)
	lines := bufio.NewScanner(text)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 6 || f[1] != "FLOCK" || f[3] != "WRITE" || f[5] != want {
			continue
		}
		if pid, err := strconv.Atoi(f[4]); err == nil && pid > 0 {
			return pid, nil
		}
	}
	return 0, lines.Err()
}
