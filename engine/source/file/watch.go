// SPDX-License-Identifier: Apache-2.0

package file

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/engine/manifest"
)

// events are those of inotify(7) that mean something here. The one that decides is IN_CLOSE_WRITE: it tells a file
// that was written from one that is being written, which a portable library cannot.
const events = unix.IN_CREATE | unix.IN_MODIFY | unix.IN_CLOSE_WRITE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM |
	unix.IN_DELETE | unix.IN_ATTRIB | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR

// watch tells when files that matter have changed and are at rest. It watches directories only: a watch on a file is
// lost when the file is replaced.
type watch struct {
	// stirred has a token when there was an event since the last receive.
	stirred chan struct{}
	// fd is that of inotify. File.Fd is not used: it would make the file blocking, and close would wait for an event.
	fd      int
	inotify *os.File
	reader  sync.WaitGroup

	mu     sync.Mutex
	settle settle
	dirs   map[string]int32
	byWD   map[int32]string
	trail  trail
}

// openWatch fails if the user has no inotify instances left (fs.inotify.max_user_instances).
func openWatch() (*watch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("open inotify: %w", err)
	}
	w := &watch{
		stirred: make(chan struct{}, 1),
		fd:      fd,
		inotify: os.NewFile(uintptr(fd), "inotify"),
		dirs:    map[string]int32{},
		byWD:    map[int32]string{},
	}
	w.reader.Go(w.read)
	return w, nil
}

// close ends the watch and waits for its reader.
func (w *watch) close() {
	w.inotify.Close()
	w.reader.Wait()
}

// follow watches everything that path now leads through. It returns when the watches are set and the way is still the
// same: a change from then on is an event.
func (w *watch) follow(path string) error {
	for range 10 {
		before := trailOf(path)
		if err := w.set(before); err != nil {
			return err
		}
		if before.equal(trailOf(path)) {
			return nil
		}
	}
	return nil // it changes all the time, so there is an event already
}

func (w *watch) set(t trail) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.trail = t
	var failed []error
	for dir := range t.dirs {
		// For a directory that is watched already this returns the same descriptor, for another one under the
		// same name a new one.
		wd, err := unix.InotifyAddWatch(w.fd, dir, events)
		if err != nil {
			failed = append(failed, fmt.Errorf("watch %s: %w", dir, err))
			continue
		}
		w.forget(dir, int32(wd))
		w.dirs[dir], w.byWD[int32(wd)] = int32(wd), dir
	}
	for dir := range w.dirs {
		if !t.dirs[dir] {
			w.forget(dir, -1)
		}
	}
	return errors.Join(failed...)
}

// forget ends the watch on a directory unless it is the one named by keep.
func (w *watch) forget(dir string, keep int32) {
	wd, known := w.dirs[dir]
	if !known || wd == keep {
		return
	}
	delete(w.dirs, dir)
	delete(w.byWD, wd)
	// The kernel has ended it itself if the directory is gone; there is nothing to do about that or any other error.
	_, _ = unix.InotifyRmWatch(w.fd, uint32(wd))
}

// rest tells which file is expected to change further, and how long to wait for it at most: no time if none is.
func (w *watch) rest() (path string, wait time.Duration, since time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	path, wait = w.settle.rest(time.Now())
	return path, wait, w.settle.since
}

func (w *watch) read() {
	buffer := make([]byte, 64*1024)
	for {
		n, err := w.inotify.Read(buffer)
		if err != nil {
			return // closed: inotify has no other errors once it is open
		}
		if w.take(buffer[:n]) {
			select {
			case w.stirred <- struct{}{}:
			default:
			}
		}
	}
}

// take decodes struct inotify_event {s32 wd; u32 mask, cookie, len; char name[len]} in host order.
func (w *watch) take(buffer []byte) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	matters := false
	for len(buffer) >= unix.SizeofInotifyEvent {
		wd := int32(binary.NativeEndian.Uint32(buffer))
		mask := binary.NativeEndian.Uint32(buffer[4:])
		end := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(buffer[12:]))
		name := string(bytes.TrimRight(buffer[unix.SizeofInotifyEvent:end], "\x00"))
		buffer = buffer[end:]
		if w.event(wd, mask, name) {
			matters = true
		}
	}
	return matters
}

func (w *watch) event(wd int32, mask uint32, name string) bool {
	dir, known := w.byWD[wd]
	switch {
	case mask&unix.IN_Q_OVERFLOW != 0:
		return true
	case !known:
		return false
	case mask&unix.IN_IGNORED != 0:
		delete(w.byWD, wd)
		delete(w.dirs, dir)
		return false
	case name == "":
		return true // the directory itself
	}
	path := filepath.Join(dir, name)
	if !w.trail.names[path] && (dir != w.trail.content || !manifest.IsManifest(name)) {
		return false
	}
	switch {
	case mask&unix.IN_MODIFY != 0, mask&unix.IN_CREATE != 0 && isOpened(path):
		w.settle.await(path, time.Now(), writeSilence)
	case mask&(unix.IN_DELETE|unix.IN_MOVED_FROM) != 0:
		w.settle.await(path, time.Now(), returnSilence)
	case mask&unix.IN_ATTRIB == 0: // which a file that is still being written may have
		w.settle.done(path)
	}
	return true
}

// isOpened tells whether a file that has just appeared was made by opening it, so that it will be closed as well.
// Links and directories are whole from the start.
func isOpened(path string) bool {
	var st unix.Stat_t
	err := unix.Lstat(path, &st)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Nlink == 1
}
