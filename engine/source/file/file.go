// SPDX-License-Identifier: Apache-2.0

package file

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/engine"
	"github.com/evenkeel/evenkeel/engine/source"
)

const (
	// defaultPeriod is how often files are looked at that no event has told of.
	defaultPeriod = 30 * time.Second
	// blindPeriod is that where there are no events at all.
	blindPeriod = time.Second
	// firstRetry is how long a change that the engine refused waits before it is offered again; the wait doubles, up
	// to the period.
	firstRetry = time.Second
)

// Options of a Source.
type Options struct {
	// Path is a file, or a directory of *.yaml, *.yml and *.json files. Required; it need not exist yet.
	Path string
	// Log takes what a person should see; nil discards it.
	Log *slog.Logger
	// Period is how often to look at the files where no event has told of a change, as a safety net: 30 s if 0.
	Period time.Duration
}

// Source reads manifests and keeps an engine up to date with them.
type Source struct {
	path   string
	log    *slog.Logger
	period time.Duration

	// Of the goroutine in Run.
	files  files
	state  *source.State
	synced bool
	// owed tells whether the state may have differences that the engine has not taken, retry how long the last one
	// waited to be offered again.
	owed  bool
	retry time.Duration
	read  time.Time

	mu     sync.Mutex
	status Status
}

// New returns a Source that has read nothing.
func New(o Options) *Source {
	s := &Source{path: o.Path, log: o.Log, period: o.Period, files: files{path: o.Path}}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.period <= 0 {
		s.period = defaultPeriod
	}
	s.state = source.New(source.Options{Derive: true})
	s.status.Path = o.Path
	return s
}

// Run reads, and hands what has changed to apply, until the context is done; it then returns nil. It must be called
// once. The first change names all kinds as synced. A change that apply refuses is offered again, together with newer
// ones: at the next event, or after a second, two, four and so on. Run returns an error only if there is no path.
func (s *Source) Run(ctx context.Context, apply func(context.Context, engine.Change) error) error {
	if s.path == "" {
		return errors.New("run file source: no path is given")
	}
	var stirred <-chan struct{}
	w, err := openWatch()
	if err != nil {
		s.blind(err)
	} else {
		defer w.close()
		stirred = w.stirred
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-stirred:
		}
		wait := s.moving(w)
		if wait == 0 {
			wait = s.step(ctx, apply)
		}
		timer.Reset(wait)
	}
}

// blind makes up for changes that are not told.
func (s *Source) blind(err error) {
	if s.period > blindPeriod {
		s.log.Warn("changes of files cannot be watched, so the files are looked at every second; raise the limits "+
			"fs.inotify.max_user_instances and fs.inotify.max_user_watches", "path", s.path, "err", err)
		s.period = blindPeriod
	}
}

// moving makes sure that everything is watched and returns how long to wait for files that are being changed, 0 if
// none is.
func (s *Source) moving(w *watch) time.Duration {
	if w == nil {
		return 0
	}
	path, wait, since := w.rest()
	if wait > 0 {
		if d := time.Since(since); d > s.period {
			s.report(fmt.Errorf("read %s: %s has been written to for %v without a pause",
				s.path, path, d.Round(time.Second)))
		}
		return wait
	}
	// A directory that has just gone is no error here: the read will tell.
	err := w.follow(s.path)
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) {
		s.blind(err)
	}
	return 0
}

// step reads, offers, and returns how long to wait for an event at most. What was read before, and not taken, is
// offered even if what is there now cannot be read.
func (s *Source) step(ctx context.Context, apply func(context.Context, engine.Change) error) time.Duration {
	failed := s.refresh()
	wait := s.period
	if err := s.offer(ctx, apply); err != nil {
		if ctx.Err() != nil {
			return wait
		}
		if failed == nil {
			failed = fmt.Errorf("apply changes of %s: %w", s.path, err)
		}
		s.retry = max(min(2*s.retry, s.period), firstRetry)
		wait = s.retry
	} else {
		s.retry = 0
	}
	s.report(failed)
	return wait
}

// refresh brings the state up to the files.
func (s *Source) refresh() error {
	next, err := s.files.next()
	if err != nil {
		return err
	}
	s.read = time.Now()
	if next == nil {
		return nil
	}
	fresh, gone := s.files.keep(next)
	for _, key := range gone {
		s.state.Delete(key)
	}
	for _, p := range fresh {
		s.state.Put(p)
	}
	s.owed = true
	return nil
}

// offer hands the engine what it has not taken yet.
func (s *Source) offer(ctx context.Context, apply func(context.Context, engine.Change) error) error {
	if !s.owed {
		return nil
	}
	change := s.state.Change()
	if !s.synced {
		change.Synced = []engine.Kind{engine.Services, engine.Slices, engine.Nodes, engine.Workloads, engine.Namespaces}
	}
	if !isEmpty(change) || !s.synced {
		if err := apply(ctx, change); err != nil {
			return err
		}
	}
	s.state.Commit()
	s.owed, s.synced = false, true
	return nil
}

func isEmpty(c engine.Change) bool {
	return len(c.Services)+len(c.Slices)+len(c.Nodes)+len(c.Workloads)+len(c.Namespaces) == 0
}
