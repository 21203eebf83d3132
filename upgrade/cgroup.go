// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// openCgroup opens a directory of the unified hierarchy; its inode number is the id that links show (64-bit kernels).
func openCgroup(path string) (*os.File, uint64, error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, 0, fmt.Errorf("open cgroup: %w", err)
	}
	var fsType unix.Statfs_t
	var inode unix.Stat_t
	if err := unix.Fstatfs(int(dir.Fd()), &fsType); err != nil || fsType.Type != unix.CGROUP2_SUPER_MAGIC {
		dir.Close()
		return nil, 0, fmt.Errorf("open cgroup %s: it is not a directory of the unified hierarchy (cgroup2)", path)
	}
	if err := unix.Fstat(int(dir.Fd()), &inode); err != nil {
		dir.Close()
		return nil, 0, fmt.Errorf("open cgroup %s: %w", path, err)
	}
	return dir, inode.Ino, nil
}

// errNoHierarchy is of a process that sees no cgroup2 hierarchy, as one does in another mount namespace: whether a cgroup
// is there it cannot tell.
var errNoHierarchy = errors.New("no cgroup2 hierarchy is mounted where this process looks")

// cgroupByID opens the cgroup of this id, wherever it is mounted. It returns fs.ErrNotExist if it is gone, or was removed
// and is kept by what was made in it, and errNoHierarchy.
func cgroupByID(id uint64) (*os.File, error) {
	mount, err := cgroupMount()
	if err != nil {
		return nil, err
	}
	return cgroupIn(mount, id)
}

func cgroupIn(mount string, id uint64) (*os.File, error) {
	fd, err := cgroupHandle(mount, id)
	if err != nil {
		return nil, err
	}
	name, err := os.Readlink(filepath.Join("/proc/self/fd", fmt.Sprint(fd)))
	if err != nil {
		name = fmt.Sprintf("cgroup %d", id)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// cgroupIsGone tells whether [cgroupByID] would return fs.ErrNotExist, without asking for the name: a walk asks it of
// every link.
func cgroupIsGone(id uint64) bool {
	mount, err := cgroupMount()
	if err != nil {
		return false
	}
	fd, err := cgroupHandle(mount, id)
	if err == nil {
		unix.Close(fd)
	}
	return errors.Is(err, fs.ErrNotExist)
}

// cgroupHandle returns a descriptor of the cgroup of this id.
func cgroupHandle(mount string, id uint64) (int, error) {
	root, err := unix.Open(mount, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) { // something else is mounted over it
		return -1, fmt.Errorf("%s: %w", mount, errNoHierarchy)
	}
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", mount, err)
	}
	defer unix.Close(root)
	const fileIDKernfs = 0xfe // FILEID_KERNFS of the kernel's file handles
	raw := unsafe.Slice((*byte)(unsafe.Pointer(&id)), 8)
	fd, err := unix.OpenByHandleAt(root, unix.NewFileHandle(fileIDKernfs, raw), unix.O_RDONLY|unix.O_CLOEXEC)
	if errors.Is(err, unix.ESTALE) {
		return -1, fs.ErrNotExist
	}
	if err != nil {
		return -1, fmt.Errorf("open cgroup %d: %w", id, err)
	}
	// Older kernels open one that was removed, too, which has no files any more.
	if err := unix.Faccessat(fd, "cgroup.procs", unix.F_OK, 0); errors.Is(err, unix.ENOENT) {
		unix.Close(fd)
		return -1, fs.ErrNotExist
	}
	return fd, nil
}

// cgroupName is a cgroup's path, or its number if it has none any more.
func cgroupName(id uint64) string {
	dir, err := cgroupByID(id)
	if err != nil {
		return fmt.Sprintf("number %d", id)
	}
	defer dir.Close()
	return dir.Name()
}

// lastCgroupMount is what cgroupMount found last: to read all mounts takes longer than all else that is asked of a cgroup.
var lastCgroupMount atomic.Pointer[string]

// cgroupMount finds where the unified hierarchy is mounted.
func cgroupMount() (string, error) {
	var at unix.Statfs_t
	if last := lastCgroupMount.Load(); last != nil && unix.Statfs(*last, &at) == nil && at.Type == unix.CGROUP2_SUPER_MAGIC {
		return *last, nil
	}
	mounts, err := os.Open("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	defer mounts.Close()
	path, err := parseCgroupMount(mounts)
	if err == nil && path == "" {
		err = errNoHierarchy
	}
	if err != nil {
		return "", fmt.Errorf("find a mounted cgroup2 hierarchy: %w", err)
	}
	lastCgroupMount.Store(&path)
	return path, nil
}

// parseCgroupMount finds the first cgroup2 mount in text of the form of fstab(5), "" if there is none. The second field
// is the path, with white space and backslashes in octal, the third the type.
func parseCgroupMount(text io.Reader) (string, error) {
	lines := bufio.NewScanner(text)
	for lines.Scan() {
		if f := strings.Fields(lines.Text()); len(f) > 2 && f[2] == "cgroup2" {
			return unescape.Replace(f[1]), nil
		}
	}
	return "", lines.Err()
}

var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
