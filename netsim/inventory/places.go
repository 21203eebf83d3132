// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/netsim"
)

// processesOf lists the processes of a cgroup and those below it.
func processesOf(cgroup string) (Inventory, error) {
	var found Inventory
	err := filepath.WalkDir(cgroup, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || entry.Name() != "cgroup.procs" {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return nil //nolint:nilerr // the cgroup has gone
		}
		for _, field := range strings.Fields(string(text)) {
			pid, err := strconv.ParseUint(field, 10, 32)
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			if name := processName(pid); name != "" {
				found = append(found, Object{Kind: Process, Name: name, Number: pid})
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	return found, nil
}

// processName is a process's program and first argument and the end of its cgroup's path, "" if it has ended.
func processName(pid uint64) string {
	dir := filepath.Join("/proc", strconv.FormatUint(pid, 10))
	if _, err := netsim.ProcessOf(int(pid)); err != nil { // also if it was not waited for
		return ""
	}
	line, err := os.ReadFile(filepath.Join(dir, "cmdline"))
	if len(line) == 0 { // in the middle of its execve(2)
		line, err = os.ReadFile(filepath.Join(dir, "comm"))
	}
	if err != nil {
		return ""
	}
	cgroup, err := os.ReadFile(filepath.Join(dir, "cgroup"))
	if err != nil {
		return ""
	}
	var words []string
	for _, word := range bytes.SplitN(bytes.TrimSpace(line), []byte{0}, 3) {
		words = append(words, string(word))
	}
	name := filepath.Base(words[0])
	if len(words) > 1 && words[1] != "" && !strings.HasPrefix(words[1], "/") {
		name += " " + words[1]
	}
	for text := range strings.Lines(string(cgroup)) {
		if path, unified := strings.CutPrefix(strings.TrimSpace(text), "0::"); unified {
			at := strings.Split(path, "/")
			name = strings.Join(at[max(0, len(at)-2):], "/") + " " + name
		}
	}
	return name
}

// namespaces lists the network namespaces below a lab's directory and of the processes in its cgroups, and their
// interfaces.
func namespaces(p netsim.Places) (Inventory, error) {
	var paths []string
	err := filepath.WalkDir(p.Namespaces, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			paths = append(paths, path)
		}
		return nil //nolint:nilerr // it has gone
	})
	if err != nil {
		return nil, fmt.Errorf("list namespaces: %w", err)
	}
	names := make([]string, 0, len(paths))
	for _, path := range paths {
		names = append(names, path[len(p.Namespaces)+1:])
	}
	processes, err := processesOf(p.Cgroup)
	if err != nil {
		return nil, err
	}
	for _, process := range processes {
		paths = append(paths, fmt.Sprintf("/proc/%d/ns/net", process.Number))
		names = append(names, "of process "+process.Name)
	}
	var all Inventory
	seen := map[uint64]bool{}
	var own unix.Stat_t // which is the machine's
	if err := unix.Stat("/proc/self/ns/net", &own); err != nil {
		return nil, fmt.Errorf("look at own namespace: %w", err)
	}
	seen[own.Ino] = true
	for n, path := range paths {
		s, err := lookInto(path, seen)
		if errors.Is(err, errGone) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, Object{Kind: Namespace, Name: names[n], Number: s.cookie})
		for name, index := range s.interfaces {
			all = append(all, Object{Kind: Interface, Name: names[n] + ": " + name, Number: uint64(index)})
		}
	}
	return all, nil
}

// space is what can be seen of a namespace from within.
type space struct {
	cookie     uint64
	interfaces map[string]int
}

// lookInto enters a namespace whose inode is not among seen, and adds that. It returns errGone if there is none, or it
// was seen.
func lookInto(path string, seen map[uint64]bool) (s space, err error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return s, errGone
	}
	defer unix.Close(fd)
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return s, fmt.Errorf("stat %s: %w", path, err)
	}
	var fsys unix.Statfs_t
	if unix.Fstatfs(fd, &fsys) != nil || fsys.Type != unix.NSFS_MAGIC || seen[stat.Ino] {
		return s, errGone
	}
	seen[stat.Ino] = true
	err = netsim.Within(fmt.Sprintf("/proc/self/fd/%d", fd), func() error {
		s, err = lookAround()
		return err
	})
	return s, err
}

// lookAround looks at the namespace of the calling thread.
func lookAround() (s space, err error) {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return s, fmt.Errorf("open socket: %w", err)
	}
	defer unix.Close(socket)
	if s.cookie, err = unix.GetsockoptUint64(socket, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE); err != nil {
		return s, fmt.Errorf("get cookie of namespace: %w", err)
	}
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return s, fmt.Errorf("open netlink: %w", err)
	}
	defer handle.Close()
	links, err := netsim.Whole(handle.LinkList)
	if err != nil {
		return s, fmt.Errorf("list interfaces: %w", err)
	}
	s.interfaces = map[string]int{}
	for _, l := range links {
		s.interfaces[l.Attrs().Name] = l.Attrs().Index
	}
	return s, nil
}

// allNamespaces returns the cookies of all network namespaces that a process lives in or holds, or that are mounted in
// the mount namespace of this process.
func allNamespaces() (map[uint64]bool, error) {
	paths, err := filepath.Glob("/proc/[0-9]*/ns/net")
	if err != nil {
		return nil, err
	}
	descriptors, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return nil, err
	}
	for _, path := range descriptors {
		if target, err := os.Readlink(path); err == nil && strings.HasPrefix(target, "net:[") {
			paths = append(paths, path)
		}
	}
	all, err := readMounts()
	if err != nil {
		return nil, err
	}
	for _, m := range all {
		if m.fstype == "nsfs" {
			paths = append(paths, m.point)
		}
	}
	cookies, seen := map[uint64]bool{}, map[uint64]bool{}
	for _, path := range paths {
		s, err := lookInto(path, seen)
		if errors.Is(err, errGone) {
			continue
		}
		if err != nil {
			return nil, err
		}
		cookies[s.cookie] = true
	}
	return cookies, nil
}

// cgroups lists the cgroup of a lab and those below.
func cgroups(p netsim.Places) (Inventory, error) {
	var all Inventory
	err := filepath.WalkDir(p.Cgroup, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return nil //nolint:nilerr // it has gone
		}
		var stat unix.Stat_t
		if unix.Lstat(path, &stat) == nil {
			all = append(all, Object{Kind: Cgroup, Name: "/" + strings.TrimPrefix(path[len(p.Cgroup):], "/"), Number: stat.Ino})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list cgroups: %w", err)
	}
	return all, nil
}

type mount struct{ point, fstype string }

func readMounts() ([]mount, error) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	defer file.Close()
	var all []mount
	lines := bufio.NewScanner(file)
	for lines.Scan() { // proc(5)
		before, after, _ := strings.Cut(lines.Text(), " - ")
		fields, kind := strings.Fields(before), strings.Fields(after)
		if len(fields) > 4 && len(kind) > 0 {
			all = append(all, mount{fields[4], kind[0]})
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	return all, nil
}

// mounts lists what is mounted at or below the directories of a lab.
func mounts(p netsim.Places) (Inventory, error) {
	list, err := readMounts()
	if err != nil {
		return nil, err
	}
	var all Inventory
	for _, m := range list {
		for word, root := range map[string]string{"{run}": p.Dir, "{pins}": p.Pins} {
			if rest, is := strings.CutPrefix(m.point, root); is && (rest == "" || rest[0] == '/') {
				all = append(all, Object{Kind: Mount, Name: word + rest + " " + m.fstype})
			}
		}
	}
	return all, nil
}
