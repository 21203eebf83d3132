// SPDX-License-Identifier: Apache-2.0

package file

import (
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/evenkeel/evenkeel/engine/manifest"
	"github.com/evenkeel/evenkeel/engine/source"
)

// racy is how fresh a modification time may be without meaning anything: file systems stamp with the clock tick, so a
// second write in the same tick leaves time and size as they were. Such a file is read again the next time.
const racy = 20 * time.Millisecond

// attempts is how often files that change while they are read are read again at once.
const attempts = 5

// files remembers which files were read, so that only those that changed are decoded again.
type files struct {
	path string
	read map[string]*content
}

// content is what is kept of a file that was read.
type content struct {
	signature
	trusted bool
	keys    []placed
	skipped []manifest.Skipped
	// fresh are the objects of a file that was decoded in this very read; they are not kept.
	fresh []source.Prepared
}

type placed struct {
	key  manifest.Key
	line int
}

type signature struct {
	device, inode uint64
	size          int64
	modified      time.Time
}

// snapshot is one consistent read of all files. Keys are those of all of them; empty if nothing has changed.
type snapshot struct {
	read map[string]*content
	keys manifest.Keys
}

// next reads what has changed. It returns nil if nothing has. The snapshot counts as read once it is kept.
func (f *files) next() (*snapshot, error) {
	for range attempts {
		s, seen, err := f.attempt()
		// What was read counts, good or bad, only if it is still there: a set of files is replaced file by file.
		now, gone := f.signatures()
		switch {
		case gone != nil:
			return nil, gone
		case !slices.Equal(seen, now):
			continue
		case err != nil:
			return nil, err
		case f.unchanged(s):
			return nil, nil
		}
		return s, nil
	}
	return nil, fmt.Errorf("read %s: it changed during each of %d attempts", f.path, attempts)
}

// keep makes a snapshot the last good one, and returns what it brought and what it no longer has.
func (f *files) keep(s *snapshot) (fresh []source.Prepared, gone []manifest.Key) {
	for _, c := range f.read {
		for _, p := range c.keys {
			if _, ok := s.keys[p.key]; !ok {
				gone = append(gone, p.key)
			}
		}
	}
	for _, c := range s.read {
		fresh = append(fresh, c.fresh...)
		c.fresh = nil
	}
	f.read = s.read
	return fresh, gone
}

// skipped counts what the last good read has passed over.
func (f *files) skipped() map[string]int {
	count := map[string]int{}
	for _, c := range f.read {
		for _, k := range c.skipped {
			count[k.GroupVersion().String()+" "+k.Kind]++
		}
	}
	return count
}

func (f *files) unchanged(s *snapshot) bool {
	if f.read == nil || len(f.read) != len(s.read) {
		return false
	}
	for name, c := range s.read {
		if f.read[name] != c {
			return false
		}
	}
	return true
}

type signed struct {
	name string
	signature
}

// signatures looks at all files without reading them.
func (f *files) signatures() ([]signed, error) {
	names, err := manifest.Files(f.path)
	if err != nil {
		return nil, err
	}
	all := make([]signed, 0, len(names))
	for _, name := range names {
		info, err := os.Stat(name)
		if err != nil {
			return nil, fmt.Errorf("read manifest: %w", err)
		}
		if !info.Mode().IsRegular() {
			return nil, &manifest.Error{File: name, Reason: "is not a regular file"}
		}
		all = append(all, signed{name, signatureOf(info)})
	}
	return all, nil
}

func signatureOf(info os.FileInfo) signature {
	s := signature{size: info.Size(), modified: info.ModTime()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		s.device, s.inode = st.Dev, st.Ino
	}
	return s
}

func (f *files) attempt() (*snapshot, []signed, error) {
	seen, err := f.signatures()
	if err != nil {
		return nil, nil, err
	}
	s := &snapshot{read: map[string]*content{}, keys: manifest.Keys{}}
	for _, file := range seen {
		c := f.read[file.name]
		if c == nil || !c.trusted || c.signature != file.signature {
			if c, err = f.decode(file); err != nil {
				return nil, seen, err
			}
		}
		s.read[file.name] = c
	}
	if f.unchanged(s) {
		return s, seen, nil
	}
	for _, file := range seen { // in this order, for the second of two is the one that is refused
		for _, p := range s.read[file.name].keys {
			if err := s.keys.Add(p.key, manifest.Place{File: file.name, Line: p.line}); err != nil {
				return nil, seen, err
			}
		}
	}
	if len(s.keys) == 0 && len(seen) == 1 && seen[0].name == f.path {
		return nil, seen, &manifest.Error{File: f.path,
			Reason: "has no objects, which is not taken for an order to delete them all: to have none, use a directory"}
	}
	return s, seen, nil
}

func (f *files) decode(file signed) (*content, error) {
	if was := f.read[file.name]; was != nil && len(was.keys) > 0 && file.size == 0 {
		return nil, &manifest.Error{File: file.name,
			Reason: "is empty, as if its writer had died: to delete what it held, remove it"}
	}
	in, err := os.Open(file.name)
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	defer in.Close()
	started := time.Now()
	c := &content{signature: file.signature, trusted: started.Sub(file.modified) > racy}
	c.skipped, err = manifest.Each(in, file.name, func(d manifest.Document) error {
		c.fresh = append(c.fresh, source.Prepare(d.Object, d.Origin()))
		c.keys = append(c.keys, placed{d.Key(), d.Line})
		return nil
	})
	if err != nil {
		return nil, err
	}
	c.keys = slices.Clone(c.keys) // without the room that it grew into
	return c, nil
}
