// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"

	"github.com/evenkeel/evenkeel/cni"
)

const listed = `{
  "cniVersion": "1.0.0", "odd": 1.50, "name": "net",
  "plugins": [{"type": "bridge", "mtu": 1e3, "ipam": {"type": "host-local"}}, {"type": "portmap"}]
}`

const single = `{"cniVersion": "0.4.0", "name": "net", "type": "ptp", "mtu": 1500}`

func newNode(t testing.TB, mode Mode) *Options {
	t.Helper()
	dir := t.TempDir()
	o := &Options{
		ConfDir: filepath.Join(dir, "net.d"), BinDir: filepath.Join(dir, "bin"), Binary: filepath.Join(dir, "plugin"), Mode: mode,
		Conf: cni.Conf{Exempt: []string{"kube-system"}},
	}
	if err := os.Mkdir(o.ConfDir, 0o755); err != nil {
		t.Fatal(err)
	}
	put(t, o.Binary, "binary")
	return o
}

func put(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
}

// types is the chain as libcni sees it.
func types(t testing.TB, o *Options) string {
	t.Helper()
	path, err := choose(o.ConfDir)
	if err != nil {
		t.Fatal(err)
	}
	all, err := chain(path)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// chain reads a configuration as go-cni does.
func chain(path string) (string, error) {
	if filepath.Ext(path) != ".conflist" {
		c, err := libcni.ConfFromFile(path) //nolint:staticcheck // what runtimes still do
		if err != nil {
			return "", err
		}
		return c.Network.Type, nil
	}
	l, err := libcni.NetworkConfFromFile(path)
	if err != nil {
		return "", err
	}
	var all []string
	for _, p := range l.Plugins {
		all = append(all, p.Network.Type)
	}
	return strings.Join(all, " "), nil
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	must(t, err)
	return string(text)
}

func names(t testing.TB, dir string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func TestInstallIntoAListAndOut(t *testing.T) {
	o := newNode(t, Rewrite)
	path := filepath.Join(o.ConfDir, "10-net.conflist")
	put(t, path, listed)
	put(t, filepath.Join(o.ConfDir, "20-other.conflist"), strings.Replace(listed, `"net"`, `"other"`, 1))
	must(t, os.Chmod(path, 0o604))
	if os.Geteuid() == 0 {
		must(t, os.Chown(path, 12, 34))
	}
	changed, err := o.Install()
	if err != nil || !changed {
		t.Fatal(changed, err)
	}
	if got := types(t, o); got != "bridge portmap evenkeel-cni" {
		t.Error(got)
	}
	text := read(t, path)
	for _, want := range []string{`"odd": 1.50`, `"mtu": 1e3`, `"kube-system"`} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is lost in %s", want, text)
		}
	}
	about, err := os.Stat(path)
	must(t, err)
	owner := about.Sys().(*syscall.Stat_t)
	if about.Mode().Perm() != 0o604 || os.Geteuid() == 0 && (owner.Uid != 12 || owner.Gid != 34) {
		t.Errorf("mode %v, owner %d:%d", about.Mode(), owner.Uid, owner.Gid)
	}
	if changed, err := o.Install(); changed || err != nil || read(t, path) != text {
		t.Error("not the same the second time", changed, err)
	}
	if s := o.Status(); !s.Chained || !s.Current || len(s.Problems) > 0 {
		t.Errorf("%+v", s)
	}
	must(t, o.Uninstall())
	must(t, o.Uninstall())
	if got := types(t, o); got != "bridge portmap" {
		t.Error(got)
	}
	if left := append(names(t, o.BinDir), names(t, o.ConfDir)...); !slices.Equal(left, []string{"10-net.conflist", "20-other.conflist"}) {
		t.Error(left)
	}
	if s := o.Status(); s.Chained || s.Installed || len(s.Problems) != 2 {
		t.Errorf("%+v", s)
	}
}

func TestASinglePluginBecomesAList(t *testing.T) {
	o := newNode(t, Rewrite)
	put(t, filepath.Join(o.ConfDir, "10-net.conf"), single)
	_, err := o.Install()
	must(t, err)
	if got := types(t, o); got != "ptp evenkeel-cni" {
		t.Error(got)
	}
	if s := o.Status(); !s.Chained {
		t.Errorf("%+v", s)
	}
	must(t, o.Uninstall())
	if got := names(t, o.ConfDir); !slices.Equal(got, []string{"10-net.conf"}) || read(t, filepath.Join(o.ConfDir, got[0])) != single {
		t.Error(got)
	}
}

func TestDropIn(t *testing.T) {
	o := newNode(t, DropIn)
	path := filepath.Join(o.ConfDir, "10-net.conflist")
	put(t, path, listed)
	o.Mode = Rewrite
	_, err := o.Install()
	must(t, err)
	o.Mode = DropIn
	changed, err := o.Install()
	if err != nil || !changed || types(t, o) != "bridge portmap evenkeel-cni" || strings.Contains(read(t, path), cni.Type) {
		t.Error(changed, err, types(t, o))
	}
	if changed, err := o.Install(); changed || err != nil {
		t.Error(changed, err)
	}
	if s := o.Status(); !s.Chained || len(s.Problems) > 0 {
		t.Errorf("%+v", s)
	}
	must(t, o.Uninstall())
	if got := names(t, o.ConfDir); types(t, o) != "bridge portmap" || len(got) != 1 {
		t.Error(got)
	}
	// Which this list does not want to be read.
	put(t, path, strings.Replace(listed, "{", `{"loadOnlyInlinedPlugins": true,`, 1))
	_, err = o.Install()
	must(t, err)
	if got := types(t, o); got != "bridge portmap evenkeel-cni" || len(names(t, o.ConfDir)) != 1 {
		t.Error(got)
	}
}

func TestRefusesAndTouchesNothing(t *testing.T) {
	for name, test := range map[string]struct{ file, text, want string }{
		"what is no JSON":         {"1.conflist", "{", "1.conflist"},
		"half a list":             {"1.conflist", listed[:len(listed)-9], "1.conflist"},
		"two lists":               {"1.conflist", listed + listed, "behind"},
		"a list without plugins":  {"1.conflist", `{"cniVersion":"1.0.0","name":"a","plugins":[]}`, "no plugins"},
		"a plugin without type":   {"1.conflist", `{"cniVersion":"1.0.0","name":"a","plugins":[{}]}`, "type"},
		"a name that climbs":      {"1.conflist", `{"cniVersion":"1.0.0","name":"../a","plugins":[{"type":"x"}]}`, "name"},
		"an old version":          {"1.conflist", `{"cniVersion":"0.2.0","name":"a","plugins":[{"type":"x"}]}`, "0.3.0"},
		"no version":              {"1.conf", `{"name":"a","type":"x"}`, "0.3.0"},
		"a single plugin as list": {"1.conflist", single, "has no plugins"},
		"a list as single plugin": {"1.json", listed, "does not end in .conflist"},
		"the wrong one before":    {"0.json", "x", "0.json"},
	} {
		t.Run(name, func(t *testing.T) {
			o := newNode(t, Rewrite)
			put(t, filepath.Join(o.ConfDir, test.file), test.text)
			put(t, filepath.Join(o.ConfDir, "9.conflist"), listed)
			_, err := o.Install()
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Error(err)
			}
			if read(t, filepath.Join(o.ConfDir, test.file)) != test.text || read(t, filepath.Join(o.ConfDir, "9.conflist")) != listed {
				t.Error("it was touched")
			}
		})
	}
	t.Run("a symbolic link", func(t *testing.T) {
		o := newNode(t, Rewrite)
		target := filepath.Join(t.TempDir(), "target")
		put(t, target, listed)
		must(t, os.Symlink(target, filepath.Join(o.ConfDir, "1.conflist")))
		if _, err := o.Install(); err == nil || !strings.Contains(err.Error(), "symbolic link") || read(t, target) != listed {
			t.Error(err)
		}
	})
	t.Run("nothing there yet", func(t *testing.T) {
		o := newNode(t, Rewrite)
		if _, err := o.Install(); !errors.Is(err, ErrNoConfiguration) {
			t.Error(err)
		}
	})
}

func TestAWriterInBetweenWins(t *testing.T) {
	o := newNode(t, Rewrite)
	path := filepath.Join(o.ConfDir, "10-net.conflist")
	put(t, path, listed)
	c, err := readChosen(o.ConfDir)
	must(t, err)
	entry, err := o.entry()
	must(t, err)
	newer := strings.Replace(listed, "1e3", "1400", 1)
	must(t, cni.Replace(path, []byte(newer), 0o600))
	if err := c.file.replace(c.with(entry)); !errors.Is(err, errMoved) || read(t, path) != newer {
		t.Errorf("%v, %s", err, read(t, path))
	}
	t.Run("one that has it open", func(t *testing.T) {
		c, err := readChosen(o.ConfDir)
		must(t, err)
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		must(t, err)
		defer f.Close()
		if err := c.file.replace(c.with(entry)); !errors.Is(err, errMoved) || read(t, path) != newer {
			t.Errorf("%v, %s", err, read(t, path))
		}
	})
	if left := names(t, o.ConfDir); len(left) != 1 {
		t.Error(left)
	}
}

// TestEditsAtRandom lets a primary plugin change its configuration at random while a reader reads it as a runtime does.
func TestEditsAtRandom(t *testing.T) {
	const edits = 1000
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	o := newNode(t, Rewrite)
	k := &Keeper{Options: *o}
	p := &primary{dir: o.ConfDir}
	p.edit(t, random)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	go func() { ended <- k.Run(ctx) }()
	var reads atomic.Int64
	go func() { ended <- reader(ctx, o.ConfDir, &reads) }()
	begin := time.Now()
	for range edits {
		p.edit(t, random)
		pause := time.NewTimer(time.Duration(random.IntN(10)) * time.Millisecond)
		<-pause.C
	}
	took := time.Since(begin)
	late := time.Now()
	want := fmt.Sprintf("primary-%d extra evenkeel-cni", p.edits)
	for {
		path, err := choose(o.ConfDir)
		must(t, err)
		if got, err := chain(path); err == nil && got == want {
			break
		} else if time.Since(late) > 5*time.Second {
			t.Fatalf("the chain is %q, %v", got, err)
		}
	}
	back := time.Since(late)
	cancel()
	for range 2 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	t.Logf("%d edits in %v, %d reads, %d rewrites, back after %v", edits, took.Round(time.Millisecond), reads.Load(), k.Rewrites(), back)
	if back > time.Second {
		t.Errorf("back after %v", back)
	}
	if most := uint64(burst + int(took/settle) + 1); k.Rewrites() > most {
		t.Errorf("%d rewrites in %v, at most %d", k.Rewrites(), took, most)
	}
}

// primary is a plugin that writes its configuration as such do: beside, and renamed over, under one name or another.
type primary struct {
	dir   string
	file  string
	edits int
}

func (p *primary) edit(t *testing.T, random *rand.Rand) {
	t.Helper()
	p.edits++
	text := fmt.Sprintf(`{"cniVersion":"1.0.0","name":"net","plugins":[{"type":"primary-%d","n":%d},{"type":"extra"}]}`, p.edits, p.edits)
	names := []string{"10-net.conflist", "05-net.conflist", "10-net.conflist", "07-net.conflist"}
	name := names[random.IntN(len(names))]
	beside := filepath.Join(p.dir, name+".tmp")
	put(t, beside, text)
	// The new name goes before the old one, or behind it: at no moment is there none.
	must(t, os.Rename(beside, filepath.Join(p.dir, name)))
	if p.file != "" && p.file != name {
		if err := os.Remove(filepath.Join(p.dir, p.file)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	p.file = name
}

// reader returns what a runtime would have stumbled over.
func reader(ctx context.Context, dir string, reads *atomic.Int64) error {
	for ctx.Err() == nil {
		path, err := choose(dir)
		if err != nil {
			return err
		}
		if path == "" {
			return errors.New("there is no configuration")
		}
		got, err := chain(path)
		if errors.Is(err, fs.ErrNotExist) || err != nil && strings.Contains(err.Error(), "no such file") {
			continue // the primary has removed it meanwhile
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if all := strings.Fields(got); len(all) < 2 || !strings.HasPrefix(all[0], "primary-") || all[1] != "extra" {
			return fmt.Errorf("%s: the chain is %s", path, got)
		}
		reads.Add(1)
	}
	return nil
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{listed, single, "{", `{"name":"a","cniVersion":"1.1.0","plugins":[{"type":"evenkeel-cni"},{"type":"x"}]}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		l, err := parse(text)
		if err != nil {
			return
		}
		entry := []byte(`{"type":"evenkeel-cni"}`)
		out := l.with(entry)
		if out == nil {
			return
		}
		again, err := parse(out)
		if err != nil || !again.has() || again.with(entry) != nil {
			t.Errorf("%s became %s: %v", text, out, err)
		}
	})
}
