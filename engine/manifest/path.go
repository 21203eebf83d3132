// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// ReadPath reads a file, or all files of a directory that IsManifest accepts, sorted by name; subdirectories are left
// alone. Two documents with one key are an error, in whichever files they are. A directory without such files has no
// documents.
func ReadPath(path string) ([]Document, []Skipped, error) {
	files, err := Files(path)
	if err != nil {
		return nil, nil, err
	}
	var docs []Document
	var skipped []Skipped
	for _, name := range files {
		d, s, err := readFile(name)
		if err != nil {
			return nil, nil, err
		}
		docs, skipped = append(docs, d...), append(skipped, s...)
	}
	if err := unique(docs); err != nil {
		return nil, nil, err
	}
	return docs, skipped, nil
}

func readFile(name string) ([]Document, []Skipped, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, nil, fmt.Errorf("read manifest: %w", err)
	}
	defer f.Close()
	return Decode(f, name)
}

// Files returns the path itself if it is a file, and the manifests in it, sorted, if it is a directory. A symbolic
// link counts as what it points to; one that points nowhere is returned, so that reading it tells.
func Files(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read manifests: %w", err)
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, fmt.Errorf("read manifests: %w", err)
	}
	var files []string
	for _, e := range entries {
		name := filepath.Join(path, e.Name())
		if !IsManifest(e.Name()) {
			continue
		}
		if info, err := os.Stat(name); err == nil && info.IsDir() {
			continue
		}
		files = append(files, name)
	}
	slices.Sort(files)
	return files, nil
}

// IsManifest tells by the name whether a file in a directory is read: *.yaml, *.yml and *.json that are neither
// hidden nor an editor's backup.
func IsManifest(name string) bool {
	if strings.HasPrefix(name, ".") {
		return false
	}
	switch filepath.Ext(name) {
	case ".yaml", ".yml", ".json":
		return true
	}
	return false
}
