// SPDX-License-Identifier: Apache-2.0

package footprint

import (
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Needed is what an agent of the default sizes needs to start beside few objects, in bytes. Measured: its first start, at
// which the maps are its own, is done in 28 MiB and killed in 24; a later one is done in 24 and killed in 16.
const Needed = 32 << 20

// Allowed is how much memory the control groups of this process leave it, in bytes: the least of what its own allow and
// those above. 0: nothing limits it, or that cannot be found out.
func Allowed() uint64 {
	groups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return 0
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return 0
	}
	return allowed(string(groups), string(mounts), os.ReadFile)
}

// allowed takes the texts of cgroups(7), /proc/PID/cgroup, and of proc_pid_mountinfo(5).
func allowed(groups, mounts string, read func(string) ([]byte, error)) (least uint64) {
	for line := range strings.Lines(groups) {
		part := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(part) != 3 {
			continue
		}
		kind, option, file := "cgroup2", "", "memory.max"
		if part[0] != "0" {
			kind, option, file = "cgroup", "memory", "memory.limit_in_bytes"
			if !slices.Contains(strings.Split(part[1], ","), option) {
				continue
			}
		}
		root, at := mount(mounts, kind, option)
		below, ok := strings.CutPrefix(part[2], strings.TrimSuffix(root, "/"))
		if at == "" || !ok {
			continue
		}
		for dir := path.Join("/", below); ; dir = path.Dir(dir) {
			if n := limit(read, path.Join(at, dir, file)); n != 0 && (least == 0 || n < least) {
				least = n
			}
			if dir == "/" {
				break
			}
		}
	}
	return least
}

// mount finds where a hierarchy is mounted, and which of its directories that is.
func mount(mounts, kind, option string) (root, at string) {
	for line := range strings.Lines(mounts) {
		about, how, _ := strings.Cut(line, " - ")
		f, of := strings.Fields(about), strings.Fields(how)
		if len(f) < 5 || len(of) < 3 || of[0] != kind ||
			option != "" && !slices.Contains(strings.Split(of[2], ","), option) {
			continue
		}
		return f[3], f[4]
	}
	return "", ""
}

// limit reads a limit; 0 for none: "max", or what version 1 says for it, the largest number of pages.
func limit(read func(string) ([]byte, error), file string) uint64 {
	text, err := read(file)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	if err != nil || n >= 1<<60 {
		return 0
	}
	return n
}
