// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	ebpfpin "github.com/cilium/ebpf/pin"
	"golang.org/x/sys/unix"
)

// Names in the tree. Paths are written relative to it, as people see them in messages; tree.at makes them absolute.
const (
	pathSuper   = "super"
	pathWriters = "writers"
	pathMaps    = "maps"
	pathCalls   = "calls"
	pathEntries = "entries"
	pathLinks   = "links"
	pathPods    = "links/pods"
	pathGen     = "gen"
	pathCurrent = "current"
	pathRelease = "release" // below a generation

	suffixNew  = "_new"  // not reachable yet
	suffixDead = "_dead" // not reachable any more
)

// directories of a whole tree, in the order in which they can be made.
var directories = [...]string{pathWriters, pathMaps, pathCalls, pathEntries, pathLinks, pathPods, pathGen}

func building(name string) bool {
	return strings.HasSuffix(name, suffixNew) || strings.HasSuffix(name, suffixDead)
}

func generationPath(n uint16) string { return pathGen + "/" + strconv.Itoa(int(n)) }

func releasePath(n uint16) string { return generationPath(n) + "/" + pathRelease }

// generationOf reads the number of a directory under gen/, whatever state it is in.
func generationOf(name string) (uint16, bool) {
	name = strings.TrimSuffix(strings.TrimSuffix(name, suffixNew), suffixDead)
	n, err := strconv.ParseUint(name, 10, 16)
	return uint16(n), err == nil && n > 0 && uint16(n) < generations && strconv.Itoa(int(n)) == name
}

// tree is the directory that everything is pinned under.
type tree string

func (t tree) at(path string) string { return filepath.Join(string(t), path) }

// list reads the names in a directory, sorted; none if it is not there or is none.
func (t tree) list(path string) ([]fs.DirEntry, error) {
	entries, err := os.ReadDir(t.at(path))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", t.at(path), err)
	}
	return entries, nil
}

// strayError says that a path holds something else than it should.
type strayError struct{ want, found string }

func (e *strayError) Error() string { return fmt.Sprintf("it is %s, not %s", e.found, e.want) }

// openPin opens what is pinned at a path if it is what the type says: *ebpf.Map, *ebpf.Program or link.Link. It returns
// a strayError if something else is there, fs.ErrNotExist if nothing is.
func openPin[T ebpfpin.Pinner](t tree, path string) (T, error) {
	var none T
	want := describePin(any(&none))
	stat, err := os.Lstat(t.at(path))
	if err != nil {
		return none, err
	}
	if !stat.Mode().IsRegular() {
		found := "a directory"
		if !stat.IsDir() {
			found = "a symbolic link"
		}
		return none, &strayError{want, found}
	}
	object, err := ebpfpin.Load(t.at(path), nil)
	if err != nil {
		return none, err
	}
	if typed, ok := object.(T); ok {
		return typed, nil
	}
	object.Close()
	return none, &strayError{want, describePin(object)}
}

func describePin(object any) string {
	switch object.(type) {
	case *ebpf.Map, **ebpf.Map:
		return "a map"
	case *ebpf.Program, **ebpf.Program:
		return "a program"
	}
	return "a link"
}

// attachment is a link and what it says about itself.
type attachment struct {
	link.Link
	info    *link.Info
	at      Where
	attach  ebpf.AttachType // 0 for Sockhash
	target  uint64          // cgroup id, inode of the namespace, interface index, map id
	defunct bool            // it is attached to nothing that anything could enter: its target is gone, or somebody detached it
	dying   bool            // it is defunct, but sockets that were made in its cgroup keep that, and the link with it, alive
}

// openLink opens a pinned link.
func openLink(t tree, path string) (*attachment, error) {
	l, err := openPin[link.Link](t, path)
	if err != nil {
		return nil, err
	}
	a := &attachment{Link: l}
	if a.info, err = l.Info(); err != nil {
		l.Close()
		return nil, fmt.Errorf("read link %s: %w", path, err)
	}
	switch raw, isRaw := l.(*link.RawLink); {
	case a.info.Cgroup() != nil:
		c := a.info.Cgroup()
		a.at, a.attach, a.target = Cgroup, ebpf.AttachType(c.AttachType), c.CgroupId
	case a.info.NetNs() != nil:
		a.at, a.attach, a.target = Netns, ebpf.AttachType(a.info.NetNs().AttachType), uint64(a.info.NetNs().NetnsInode)
	case a.info.TCX() != nil:
		a.at, a.attach, a.target = Tcx, ebpf.AttachType(a.info.TCX().AttachType), uint64(a.info.TCX().Ifindex)
	case isRaw && a.info.Type == sockMapType:
		id, err := sockmapOf(raw)
		if err != nil {
			l.Close()
			return nil, err
		}
		a.at, a.target = Sockhash, uint64(id)
	}
	// The kernel zeroes it when a cgroup, a namespace or a device goes, and when somebody detaches the link.
	// That of a cgroup goes late: its sockets hold it, wherever the processes are that they belong to.
	a.dying = a.hasDyingCgroup()
	a.defunct = a.target == 0 || a.dying
	return a, nil
}

// hasDyingCgroup tells whether a link's cgroup has been removed though it is attached to it still. Whoever may not look
// it up by its number takes it for alive.
func (l *attachment) hasDyingCgroup() bool {
	return l.at == Cgroup && l.target != 0 && cgroupIsGone(l.target)
}

// sockMapType is BPF_LINK_TYPE_SOCKMAP (Linux 6.10), which the library does not name.
const sockMapType link.Type = 14
