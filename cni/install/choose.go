// SPDX-License-Identifier: Apache-2.0

package install

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// extensions are those of the files that a runtime reads.
var extensions = []string{".conf", ".conflist", ".json"}

// choose finds the configuration that the runtime uses: the first by name. It returns "" if there is none yet.
func choose(dir string) (string, error) {
	entries, err := os.ReadDir(dir) // sorted by name
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		if !e.IsDir() && slices.Contains(extensions, filepath.Ext(e.Name())) {
			return filepath.Join(dir, e.Name()), nil
		}
	}
	return "", nil
}

// chosen is the configuration that the runtime uses, read.
type chosen struct {
	*file
	*list
}

// readChosen returns nil if there is none yet.
func readChosen(dir string) (*chosen, error) {
	path, err := choose(dir)
	if err != nil || path == "" {
		return nil, err
	}
	f, err := readFile(path)
	if err != nil {
		return nil, err
	}
	l, err := parse(f.text)
	if err != nil {
		return nil, fmt.Errorf("%s, which is the configuration that the runtime uses: %w", path, err)
	}
	if l.single == (filepath.Ext(path) == ".conflist") {
		what := "has no plugins"
		if !l.single {
			what = "is a list of plugins, and its name does not end in .conflist"
		}
		return nil, fmt.Errorf("%s, which is the configuration that the runtime uses, %s", path, what)
	}
	return &chosen{f, l}, nil
}
