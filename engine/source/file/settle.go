// SPDX-License-Identifier: Apache-2.0

package file

import "time"

// How long to wait for the second half of a change, if it does not announce itself.
const (
	// writeSilence ends the wait for a writer that neither writes nor closes. Writers close, which is an event and
	// ends the wait at once; a file that is read in the middle of a write may look valid, with half of its documents
	// gone.
	writeSilence = 2 * time.Second
	// returnSilence ends the wait for a file that vanished: editors move the old file away before they write the new.
	returnSilence = 100 * time.Millisecond
)

// settle decides when the files are at rest. A rename into place, a closed file, a swapped link say so at once; a
// file that is being written, or was just taken away, is waited for.
type settle struct {
	// pending are the files that something is still expected of, and until when.
	pending map[string]time.Time
	// since is when the first of those came, zero if there are none.
	since time.Time
}

// done notes that a change is complete.
func (s *settle) done(path string) {
	delete(s.pending, path)
	if len(s.pending) == 0 {
		s.since = time.Time{}
	}
}

// await notes a change that more is to follow on.
func (s *settle) await(path string, now time.Time, silence time.Duration) {
	if s.pending == nil {
		s.pending = map[string]time.Time{}
	}
	if len(s.pending) == 0 {
		s.since = now
	}
	s.pending[path] = now.Add(silence)
}

// rest tells whether nothing more is expected, after giving up on what has been silent for long enough. If something
// is, wait is how long at most; the file that takes longest is named.
func (s *settle) rest(now time.Time) (path string, wait time.Duration) {
	for p, until := range s.pending {
		switch left := until.Sub(now); {
		case left <= 0:
			s.done(p)
		case left > wait:
			path, wait = p, left
		}
	}
	return path, wait
}
