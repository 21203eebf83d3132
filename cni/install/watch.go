// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// period is how often the directory is looked at without an event, retry where something was wrong with it.
	period = 30 * time.Second
	retry  = 500 * time.Millisecond
	// settle is how long others are given to end what they are writing.
	settle = 50 * time.Millisecond
	// burst is how many rewrites may follow each other; then there is a pause before each, which doubles up to longest
	// and is forgiven after a time without one. A pod that starts meanwhile is outside the mesh: so it is short.
	burst   = 10
	longest = 500 * time.Millisecond
	forgive = 10 * time.Second
)

// Keeper keeps the plugin in the chain, whoever takes it out.
type Keeper struct {
	Options
	rewrites atomic.Uint64
}

// Rewrites counts how often the configuration was written.
func (k *Keeper) Rewrites() uint64 { return k.rewrites.Load() }

// Run puts the plugin into the chain, and back into it whenever it is taken out, until ctx ends. It then leaves
// everything as it is.
func (k *Keeper) Run(ctx context.Context) error {
	if k.Log == nil {
		k.Log = slog.New(slog.DiscardHandler)
	}
	w, err := watchDir(k.ConfDir)
	if err != nil {
		k.Log.Warn("the directory of network configurations cannot be watched and is looked at now and then", "err", err)
	} else {
		defer w.close()
	}
	var t throttle
	said, due := "", false
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-w.events():
			if !due {
				due = true
				timer.Reset(settle + t.pause(time.Now()))
			}
			continue
		}
		due = false
		if w != nil {
			if err := w.follow(); err != nil {
				k.Log.Debug("watch directory", "err", err) // it is not there, and looked for again
			}
		}
		changed, err := k.Install()
		if changed && err == nil {
			k.rewrites.Add(1)
			if t.wrote(time.Now()) {
				k.Log.Warn("another program takes the plugin out of the chain again and again, so it is put back more slowly: "+
					"switch that off there (Cilium: cni.exclusive=false)", "dir", k.ConfDir)
			}
			k.Log.Info("the plugin was put into the chain", "dir", k.ConfDir)
		}
		wait := period
		if err != nil {
			wait = retry
			if err.Error() != said {
				k.Log.Warn("the plugin is not in the chain", "err", err)
			}
			said = err.Error()
		} else {
			said = ""
		}
		timer.Reset(wait)
	}
}

// throttle slows a fight down.
type throttle struct {
	writes int
	last   time.Time
	wait   time.Duration
}

// wrote notes a rewrite, and reports whether it is the one from which on there are pauses.
func (t *throttle) wrote(now time.Time) bool {
	t.writes++
	t.last = now
	return t.writes == burst
}

// pause is how long to wait before the next look.
func (t *throttle) pause(now time.Time) time.Duration {
	if now.Sub(t.last) > forgive {
		t.writes, t.wait = 0, 0
	}
	if t.writes < burst {
		return 0
	}
	t.wait = min(max(2*t.wait, settle), longest)
	return t.wait
}

// dirWatch tells of changes in a directory.
type dirWatch struct {
	dir     string
	fd      int
	f       *os.File
	stirred chan struct{}
	done    chan struct{}
}

func watchDir(dir string) (*dirWatch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("open inotify: %w", err)
	}
	w := &dirWatch{dir, fd, os.NewFile(uintptr(fd), "inotify"), make(chan struct{}, 1), make(chan struct{})}
	go w.read()
	return w, nil
}

// follow watches what the path names now. A directory that is watched already stays so.
func (w *dirWatch) follow() error {
	const events = unix.IN_CLOSE_WRITE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE | unix.IN_DELETE_SELF |
		unix.IN_MOVE_SELF | unix.IN_ONLYDIR
	_, err := unix.InotifyAddWatch(w.fd, w.dir, events)
	return err
}

func (w *dirWatch) read() {
	defer close(w.done)
	buffer := make([]byte, 16<<10)
	for {
		_, err := w.f.Read(buffer)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return // closed
		}
		select {
		case w.stirred <- struct{}{}:
		default:
		}
	}
}

func (w *dirWatch) close() {
	w.f.Close()
	<-w.done
}

// events is nil, which never tells, where there is no watch.
func (w *dirWatch) events() <-chan struct{} {
	if w == nil {
		return nil
	}
	return w.stirred
}
