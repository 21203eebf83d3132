// SPDX-License-Identifier: Apache-2.0

package file

import (
	"errors"
	"io/fs"
	"maps"
	"slices"
	"time"

	"github.com/evenkeel/evenkeel/engine/source"
)

// maxLogged is how many new warnings or skipped kinds are logged at once; Status has all.
const maxLogged = 20

// Status is what a Source knows about itself.
type Status struct {
	Path string
	// Synced tells whether the engine has once taken all that the files said.
	Synced bool
	// Read is when the files were last found to be good, zero if never.
	Read time.Time
	// Objects counts, by kind, the objects of the last good read; Skipped those of kinds that are not read, by
	// "apps/v1 Deployment".
	Objects, Skipped map[string]int
	// Warnings are what was understood, but not done.
	Warnings []source.Warning
	// Err is why the files as they are now are not in effect; nil if they are. Where a document is at fault it is a
	// *manifest.Error, with file and line. Since is when it was first seen.
	Err   error
	Since time.Time
}

// Status may be called at any time.
func (s *Source) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.status
	st.Objects, st.Skipped = maps.Clone(st.Objects), maps.Clone(st.Skipped)
	st.Warnings = slices.Clone(st.Warnings)
	return st
}

// report notes how a step ended and logs what is new about it.
func (s *Source) report(err error) {
	before := s.Status()
	now := Status{
		Path:     s.path,
		Synced:   s.synced,
		Read:     s.read,
		Objects:  s.state.Len(),
		Skipped:  s.files.skipped(),
		Warnings: s.state.Warnings(),
		Err:      err,
		Since:    before.Since,
	}
	switch {
	case err == nil:
		now.Since = time.Time{}
		if before.Err != nil {
			s.log.Info("manifests are good again", "path", s.path)
		}
	case before.Err != nil && before.Err.Error() == err.Error():
	case !s.synced && errors.Is(err, fs.ErrNotExist):
		now.Since = time.Now()
		s.log.Warn("there are no manifests yet: they are read when they come", "path", s.path)
	default:
		now.Since = time.Now()
		s.log.Error("manifests are not in effect, what was good before stays", "path", s.path, "err", err)
	}
	s.logNew(&before, &now)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = now
}

func (s *Source) logNew(before, now *Status) {
	// A warning that has only moved to another line is not new.
	unplaced := func(w source.Warning) source.Warning { w.Origin = ""; return w }
	known := make(map[source.Warning]bool, len(before.Warnings))
	for _, w := range before.Warnings {
		known[unplaced(w)] = true
	}
	var fresh []source.Warning
	for _, w := range now.Warnings {
		if !known[unplaced(w)] {
			fresh = append(fresh, w)
		}
	}
	for _, w := range fresh[:min(len(fresh), maxLogged)] {
		s.log.Warn("not all of an object is in effect", "object", w.Key.String(), "reason", w.Text, "origin", w.Origin)
	}
	if more := len(fresh) - maxLogged; more > 0 {
		s.log.Warn("more warnings are in the status", "count", more, "path", s.path)
	}
	var kinds []string
	for kind := range now.Skipped {
		if before.Skipped[kind] == 0 {
			kinds = append(kinds, kind)
		}
	}
	if len(kinds) > 0 {
		slices.Sort(kinds)
		s.log.Info("objects of other kinds are skipped", "kinds", kinds[:min(len(kinds), maxLogged)], "path", s.path)
	}
}
