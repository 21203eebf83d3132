// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/cni"
)

// errMoved says that somebody else has written a file meanwhile: what is there is theirs, whole, and it is to be read
// again.
var errMoved = errors.New("it was written by another meanwhile")

// file is a configuration as it was read.
type file struct {
	path string
	text []byte
	stat unix.Stat_t
}

// readFile reads a regular file. It follows no symbolic link.
func readFile(path string) (*file, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ELOOP) {
		return nil, fmt.Errorf("%s is a symbolic link: put a file there", path)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := &file{path: path}
	if err := unix.Fstat(int(f.Fd()), &r.stat); err != nil {
		return nil, err
	}
	if r.stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	r.text, err = io.ReadAll(io.LimitReader(f, maxFile+1))
	if len(r.text) > maxFile {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxFile)
	}
	return r, err
}

// maxFile is far more than any configuration has.
const maxFile = 1 << 20

// suffix ends names that no runtime reads: it looks at .conf, .conflist and .json.
const suffix = ".evenkeel-new"

// replace puts text in the place of a file that was read. Readers find the one or the other, whole. It returns errMoved,
// and leaves what others wrote, if the file is not what was read any more or somebody is writing it.
//
// rename(2) would drop what another has put there between our look and the call. So the two change places, and what
// comes out is looked at. Somebody may also have the file open and write later: a read lease (fcntl(2), F_SETLEASE)
// is refused while it is open for writing, and tells if somebody tries to open it so.
func (r *file) replace(text []byte) error {
	beside := filepath.Join(filepath.Dir(r.path), "."+filepath.Base(r.path)+suffix)
	if err := r.writeBeside(beside, text); err != nil {
		return err
	}
	defer os.Remove(beside)
	lease, err := takeLease(r.path)
	if err != nil {
		return err
	}
	defer lease.close()
	if err := exchange(beside, r.path); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return errMoved
		}
		return err
	}
	out, err := readFile(beside)
	if err != nil {
		return err
	}
	if !bytes.Equal(out.text, r.text) || out.stat.Ino != r.stat.Ino || lease.broken() {
		return errors.Join(putBack(beside, r.path, text), errMoved)
	}
	return cni.SyncDir(filepath.Dir(r.path))
}

// putBack puts back what was taken out, and what others put in its place meanwhile. It is over when what comes out is
// what was put in last: nobody wrote in between.
func putBack(beside, path string, in []byte) error {
	for {
		back, err := readFile(beside)
		if err != nil {
			return err
		}
		if err := exchange(beside, path); err != nil {
			if errors.Is(err, fs.ErrNotExist) { // they have removed it: what was taken out is older
				return nil
			}
			return err
		}
		out, err := readFile(beside)
		if err != nil || bytes.Equal(out.text, in) {
			return err
		}
		in = back.text
	}
}

func exchange(a, b string) error {
	err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
	if err != nil {
		return &os.LinkError{Op: "exchange", Old: a, New: b, Err: err}
	}
	return nil
}

// writeBeside writes a file with the mode, the owner and the security label of the one that was read, and flushes it.
func (r *file) writeBeside(path string, text []byte) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) { // left by one that was killed
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Chown(int(r.stat.Uid), int(r.stat.Gid)), f.Chmod(fs.FileMode(r.stat.Mode&0o777)))
	label := make([]byte, 256)
	const selinux = "security.selinux"
	if n, none := unix.Getxattr(r.path, selinux, label); none == nil {
		err = errors.Join(err, unix.Fsetxattr(int(f.Fd()), selinux, label[:n], 0))
	}
	return errors.Join(err, f.Sync(), f.Close())
}

// lease is a read lease on a file: nobody has it open for writing.
type lease struct {
	f     *os.File
	taken bool // the file system has leases
}

func takeLease(path string) (*lease, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errMoved
	}
	if err != nil {
		return nil, err
	}
	_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK)
	if errors.Is(err, unix.EAGAIN) {
		f.Close()
		return nil, errMoved
	}
	return &lease{f, err == nil}, nil
}

// broken reports whether somebody waits for the file, to write it.
func (l *lease) broken() bool {
	if !l.taken {
		return false
	}
	now, err := unix.FcntlInt(l.f.Fd(), unix.F_GETLEASE, 0)
	return err != nil || now != unix.F_RDLCK
}

func (l *lease) close() {
	if l.taken {
		_, _ = unix.FcntlInt(l.f.Fd(), unix.F_SETLEASE, unix.F_UNLCK) // closing does it as well
	}
	l.f.Close()
}
