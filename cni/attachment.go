// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Attachment is an interface of a sandbox that ADD was called for, enrolled or not.
type Attachment struct {
	Network   string `json:"network"`
	Container string `json:"container"`
	Interface string `json:"interface"` // as the runtime calls it in the sandbox
	Pod       string `json:"pod"`       // "namespace/name"
	UID       string `json:"uid,omitempty"`
	Netns     string `json:"netns"`  // path of its network namespace
	Cookie    uint64 `json:"cookie"` // by which the kernel knows that
}

// Attachments are records of attachments, one file for each:
//
//	attachments/CONTAINER/INTERFACE
//
// They are on a file system that a reboot empties, as it ends the sandboxes. A record is written before anything is
// done for it and removed after all of that is undone, so whoever is killed in between leaves one that DEL or GC finds.
// A runtime never works on one container twice at once, which is all the locking that there has to be.
type Attachments struct{ dir string }

// OpenAttachments names the records below a directory, which is made when the first one is.
func OpenAttachments(runDir string) Attachments {
	return Attachments{filepath.Join(runDir, "attachments")}
}

// suffixNew is of a record that is being written. No interface has a colon in its name.
const suffixNew = ":new"

func (a Attachments) path(container, iface string) string {
	return filepath.Join(a.dir, container, iface)
}

// put writes a record, in place of one that may be there.
func (a Attachments) put(t Attachment) error {
	text, err := json.Marshal(t)
	if err != nil {
		return err
	}
	path := a.path(t.Container, t.Interface)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(path+suffixNew, text, 0o600); err != nil {
		return err
	}
	return os.Rename(path+suffixNew, path)
}

// get reads a record; nil if there is none. One that cannot be read is none: whoever wrote it was killed in the middle
// by a machine that lost power, which has lost the sandbox as well.
func (a Attachments) get(container, iface string) (*Attachment, error) {
	text, err := os.ReadFile(a.path(container, iface))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	t := new(Attachment)
	if json.Unmarshal(text, t) != nil || t.Container != container || t.Interface != iface {
		return nil, nil
	}
	return t, nil
}

// remove removes a record, and its container's directory with the last one. What is gone already is no error.
func (a Attachments) remove(container, iface string) error {
	path := a.path(container, iface)
	for _, name := range []string{path, path + suffixNew} {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	err := unix.Rmdir(filepath.Dir(path))
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTEMPTY) {
		return fmt.Errorf("remove %s: %w", filepath.Dir(path), err)
	}
	return nil
}

// of lists the records of a container, none if it has none.
func (a Attachments) of(container string) ([]Attachment, error) {
	entries, err := os.ReadDir(filepath.Join(a.dir, container))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []Attachment
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), suffixNew) {
			continue
		}
		t, err := a.get(container, e.Name())
		if err != nil {
			return nil, err
		}
		if t != nil {
			all = append(all, *t)
		}
	}
	return all, nil
}

// List returns all records. Those that come or go meanwhile may be in it or not.
func (a Attachments) List() ([]Attachment, error) {
	containers, err := os.ReadDir(a.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []Attachment
	for _, c := range containers {
		some, err := a.of(c.Name())
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}

// Forget removes the record of an attachment whose namespace is gone.
func (a Attachments) Forget(t Attachment) error { return a.remove(t.Container, t.Interface) }
