// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/cni"
)

// Mode is how the plugin gets into the chain.
type Mode string

// The modes.
const (
	Auto    Mode = "auto"    // DropIn if the runtime that runs here is known to read that, else Rewrite
	DropIn  Mode = "drop-in" // a file of its own in the directory of the network's name; needs libcni 1.3
	Rewrite Mode = "rewrite" // an entry in the configuration of the primary plugin
)

// Options say where things are on the node.
type Options struct {
	ConfDir string // of network configurations
	BinDir  string // of plugins
	Binary  string // the plugin, to be copied
	Mode    Mode
	Conf    cni.Conf     // what the plugin is told; its Type is filled in
	Log     *slog.Logger // may be nil
}

// Where runtimes look, unless they are told otherwise.
const (
	DefaultConfDir = "/etc/cni/net.d"
	DefaultBinDir  = "/opt/cni/bin"
)

// ErrNoConfiguration says that the primary plugin has not written its configuration yet.
var ErrNoConfiguration = errors.New("there is no network configuration yet: the primary plugin writes one")

// dropInName sorts behind whatever else is there: the plugin comes last.
const dropInName = "99-evenkeel.conf"

// kept is what a .conf file is called while a list has its place.
const kept = ".evenkeel-kept"

func (o *Options) entry() (json.RawMessage, error) {
	c := o.Conf
	c.Type = cni.Type
	return json.Marshal(c)
}

func (o *Options) mode() Mode {
	if o.Mode != Auto && o.Mode != "" {
		return o.Mode
	}
	if yes, _ := readsDropIns(); yes {
		return DropIn
	}
	return Rewrite
}

// Install puts the binary in its place and then the entry into the configuration, and reports whether it changed the
// latter. It returns ErrNoConfiguration if there is none to put it into.
func (o *Options) Install() (changed bool, err error) {
	if err := o.InstallBinary(); err != nil {
		return false, err
	}
	return o.Ensure()
}

// InstallBinary copies the plugin, unless that very file is there. A call that runs goes on with the old one.
func (o *Options) InstallBinary() error {
	path := filepath.Join(o.BinDir, cni.Type)
	text, err := os.ReadFile(o.Binary)
	if err != nil {
		return fmt.Errorf("read plugin: %w", err)
	}
	if there, err := os.ReadFile(path); err == nil && bytes.Equal(there, text) {
		return nil
	}
	if err := os.MkdirAll(o.BinDir, 0o755); err != nil {
		return err
	}
	if err := cni.Replace(path, text, 0o755); err != nil {
		return fmt.Errorf("install plugin: %w", err)
	}
	return nil
}

// attempts is how often a configuration that others write at the same time is read again at once.
const attempts = 20

// Ensure puts the entry into the configuration that the runtime uses if it is not there, and reports whether it did. It
// returns ErrNoConfiguration if there is none.
func (o *Options) Ensure() (changed bool, err error) {
	for range attempts {
		changed, err = o.ensure()
		if !errors.Is(err, errMoved) && !errors.Is(err, fs.ErrNotExist) {
			return changed, err
		}
	}
	return false, err
}

func (o *Options) ensure() (bool, error) {
	c, err := readChosen(o.ConfDir)
	if err != nil {
		return false, err
	}
	if c == nil {
		return false, ErrNoConfiguration
	}
	entry, err := o.entry()
	if err != nil {
		return false, err
	}
	if o.mode() == DropIn && !c.onlyInline && !c.single {
		return o.ensureDropIn(c, entry)
	}
	text := c.with(entry)
	switch {
	case text == nil:
		return false, nil
	case c.single:
		return true, o.convert(c, text)
	}
	return true, c.replace(text)
}

// ensureDropIn writes the file of the plugin, and then takes an entry out of the list, for twice is once too often.
func (o *Options) ensureDropIn(c *chosen, entry json.RawMessage) (changed bool, err error) {
	dir := filepath.Join(o.ConfDir, c.name)
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return false, err
	}
	if about, err := os.Lstat(dir); err != nil || !about.IsDir() {
		return false, errors.Join(fmt.Errorf("%s is not a directory", dir), err)
	}
	path := filepath.Join(dir, dropInName)
	if there, err := readFile(path); err != nil || !equal(there.text, entry) {
		if err := cni.Replace(path, append(entry, '\n'), 0o600); err != nil {
			return false, err
		}
		changed = true
	}
	if text := c.without(); text != nil {
		return true, c.replace(text) // which wakes the runtime
	}
	if changed {
		err = o.wake()
	}
	return changed, err
}

// wake makes a runtime read its configuration again: containerd looks at the directory itself, not at those in it, and
// at renamed files, not at new ones.
func (o *Options) wake() error {
	path := filepath.Join(o.ConfDir, ".evenkeel"+suffix)
	if err := cni.Replace(path, nil, 0o600); err != nil {
		return err
	}
	return os.Remove(path)
}

// convert makes a list of a single plugin: the list is written, under a name that comes right behind, and only then is
// the other renamed to one that no runtime reads.
func (o *Options) convert(c *chosen, text []byte) error {
	path := strings.TrimSuffix(c.path, filepath.Ext(c.path)) + ".conflist"
	beside := filepath.Join(o.ConfDir, "."+filepath.Base(path)+suffix)
	if err := c.writeBeside(beside, text); err != nil {
		return err
	}
	if err := os.Rename(beside, path); err != nil {
		return errors.Join(err, os.Remove(beside))
	}
	now, err := readFile(c.path)
	if err != nil || !bytes.Equal(now.text, c.text) {
		return errors.Join(errMoved, err) // theirs is still the one that counts
	}
	if err := os.Rename(c.path, c.path+kept); err != nil {
		return err
	}
	return cni.SyncDir(o.ConfDir)
}

// Uninstall takes the entry out of every configuration, and only then the binary away: a configuration that names a
// plugin which is not there starts no pod and loses the addresses of those that end.
func (o *Options) Uninstall() error {
	entries, err := os.ReadDir(o.ConfDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(o.ConfDir, e.Name())
		switch {
		case e.IsDir():
			err = o.removeDropIn(path)
		case strings.HasSuffix(e.Name(), kept):
			err = o.restore(path)
		case filepath.Ext(e.Name()) == ".conflist":
			err = o.takeOut(path)
		}
		if err != nil {
			return err
		}
	}
	for _, name := range []string{cni.Type} {
		if err := os.Remove(filepath.Join(o.BinDir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (o *Options) removeDropIn(dir string) error {
	err := os.Remove(filepath.Join(dir, dropInName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOTEMPTY) {
		return err
	}
	return o.wake()
}

// restore gives a .conf file its name again, and takes away the list that was made of it, unless others have changed
// that.
func (o *Options) restore(path string) error {
	old := strings.TrimSuffix(path, kept)
	listed := strings.TrimSuffix(old, filepath.Ext(old)) + ".conflist"
	f, err := readFile(path)
	if err != nil {
		return err
	}
	single, err := parse(f.text)
	if err != nil {
		return err
	}
	if made, err := readFile(listed); err == nil {
		if l, err := parse(made.text); err == nil && (len(l.plugins) != 2 || !equal(l.plugins[0], single.plugins[0])) {
			return os.Remove(path) // theirs is newer
		}
	}
	if err := os.Rename(path, old); err != nil {
		return err
	}
	if err := os.Remove(listed); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return cni.SyncDir(o.ConfDir)
}

func (o *Options) takeOut(path string) error {
	for range attempts {
		f, err := readFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		l, err := parse(f.text)
		if err != nil {
			if bytes.Contains(f.text, []byte(cni.Type)) {
				return fmt.Errorf("%s names %s and cannot be read, so the binary stays: %w", path, cni.Type, err)
			}
			return nil
		}
		if !l.has() {
			return nil
		}
		text := l.without()
		if text == nil {
			return fmt.Errorf("%s has no plugin but %s: remove it, and do this again", path, cni.Type)
		}
		if err := f.replace(text); !errors.Is(err, errMoved) {
			return err
		}
	}
	return fmt.Errorf("%s: %w", path, errMoved)
}

// Status is what of the plugin is on the node.
type Status struct {
	// Configuration is the file that the runtime uses, empty if there is none. Network is its name, Plugins what is in
	// the chain, in order.
	Configuration string   `json:"configuration"`
	Network       string   `json:"network"`
	Plugins       []string `json:"plugins"`
	Mode          Mode     `json:"mode"`
	Runtime       string   `json:"runtime,omitempty"` // that was found running
	Chained       bool     `json:"chained"`
	Binary        string   `json:"binary"` // path of the plugin
	// Installed is whether the binary is there, Current whether it is that of this release.
	Installed bool     `json:"installed"`
	Current   bool     `json:"current"`
	Problems  []string `json:"problems"`
}

// Status looks, and changes nothing.
func (o *Options) Status() Status {
	s := Status{Mode: o.mode(), Binary: filepath.Join(o.BinDir, cni.Type), Plugins: []string{}, Problems: []string{}}
	_, s.Runtime = readsDropIns()
	problem := func(err error) { s.Problems = append(s.Problems, err.Error()) }
	c, err := readChosen(o.ConfDir)
	switch {
	case err != nil:
		problem(err)
	case c == nil:
		problem(fmt.Errorf("%s: %w", o.ConfDir, ErrNoConfiguration))
	default:
		s.Configuration, s.Network, s.Chained = c.path, c.name, c.has() && !c.single
		for _, p := range c.plugins {
			s.Plugins = append(s.Plugins, typeOf(p))
		}
		if _, err := readFile(filepath.Join(o.ConfDir, c.name, dropInName)); err == nil && !c.onlyInline {
			s.Plugins, s.Chained = append(s.Plugins, cni.Type), true
		}
		if !s.Chained {
			problem(fmt.Errorf("%s is not in the chain of %s: pods start outside the mesh; evenkeel cni install", cni.Type, c.path))
		}
	}
	there, err := os.Open(s.Binary)
	if err != nil {
		problem(fmt.Errorf("the plugin is not installed: %w", err))
		return s
	}
	defer there.Close()
	s.Installed = true
	if want, err := os.Open(o.Binary); err == nil {
		defer want.Close()
		s.Current = sameContent(there, want)
		if !s.Current {
			problem(fmt.Errorf("%s is of another release: evenkeel cni install", s.Binary))
		}
	}
	return s
}

func sameContent(a, b io.Reader) bool {
	x, err := io.ReadAll(a)
	if err != nil {
		return false
	}
	y, err := io.ReadAll(b)
	return err == nil && bytes.Equal(x, y)
}
