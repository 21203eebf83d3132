// SPDX-License-Identifier: Apache-2.0

package file

import (
	"maps"
	"os"
	"path/filepath"
	"strings"

	"github.com/evenkeel/evenkeel/engine/manifest"
)

// maxLinks is how many symbolic links the kernel follows in one path (path_resolution(7)).
const maxLinks = 40

// trail is what a path leads through: the directories to watch, and the names in them that can lead it elsewhere.
type trail struct {
	dirs  map[string]bool
	names map[string]bool
	// content is the directory whose manifests are read; empty if the path is a file.
	content string
}

func (t trail) equal(u trail) bool {
	return t.content == u.content && maps.Equal(t.dirs, u.dirs) && maps.Equal(t.names, u.names)
}

// trailOf follows a path, and if that is a directory also the links in it. It knows nothing of ConfigMaps, but their
// files are links to ..data/NAME, and ..data is the link that is swapped.
func trailOf(path string) trail {
	t := trail{dirs: map[string]bool{}, names: map[string]bool{}}
	path, err := filepath.Abs(path)
	if err != nil {
		return t
	}
	end := t.add(path)
	entries, err := os.ReadDir(end)
	if err != nil {
		return t // a file, or nothing
	}
	t.dirs[end], t.content = true, end
	for _, e := range entries {
		if e.Type()&os.ModeSymlink != 0 && manifest.IsManifest(e.Name()) {
			t.add(filepath.Join(end, e.Name()))
		}
	}
	return t
}

// add notes each link on the way and the end, which it returns. What does not exist is noted in the last directory
// that does: it may appear there.
func (t *trail) add(path string) string {
	at, rest, links := "/", strings.Split(path, "/"), 0
	for len(rest) > 0 {
		step := rest[0]
		rest = rest[1:]
		if step == "" || step == "." {
			continue
		}
		next := filepath.Join(at, step)
		info, err := os.Lstat(next)
		switch {
		case err == nil && info.Mode()&os.ModeSymlink != 0:
			t.note(at, next)
			target, err := os.Readlink(next)
			if links++; err != nil || links > maxLinks {
				return next
			}
			if filepath.IsAbs(target) {
				at = "/"
			}
			rest = append(strings.Split(target, "/"), rest...)
			continue
		case err != nil, len(rest) == 0:
			t.note(at, next)
			if err != nil {
				return next
			}
		}
		at = next
	}
	return at
}

func (t *trail) note(dir, name string) { t.dirs[dir], t.names[name] = true, true }
