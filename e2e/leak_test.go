// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

const stateDir = "/run/evenkeel-sim"

// remains lists what there is of a lab on this machine: files, pins, cgroups, mounts, links in /run/netns. A lab that
// is down has none. Network namespaces live by a mount or by a process; processes by a cgroup that cannot be removed
// while it has one.
func remains(lab string) []string {
	var left []string
	patterns := []string{
		filepath.Join(stateDir, lab), filepath.Join(bpffs, "evenkeel-sim", lab),
		filepath.Join(cgroup2(), "evenkeel-sim", lab), filepath.Join("/run/netns", "sim-"+lab+"-*"),
	}
	for _, pattern := range patterns {
		found, err := filepath.Glob(pattern)
		if err != nil {
			panic(err) // names of labs have no brackets
		}
		left = append(left, found...)
	}
	for _, mount := range mounts() {
		if strings.HasPrefix(mount.point, filepath.Join(stateDir, lab)+"/") {
			left = append(left, "mount "+mount.point)
		}
	}
	return left
}

// mount is a line of /proc/self/mountinfo (proc(5)).
type mount struct{ point, fstype string }

func mounts() []mount {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	defer file.Close()
	var found []mount
	for lines := bufio.NewScanner(file); lines.Scan(); {
		before, after, _ := strings.Cut(lines.Text(), " - ")
		fields, source := strings.Fields(before), strings.Fields(after)
		if len(fields) > 4 && len(source) > 0 {
			found = append(found, mount{fields[4], source[0]})
		}
	}
	return found
}

// cgroup2 returns where the unified hierarchy is mounted; beside version 1 it is not /sys/fs/cgroup.
func cgroup2() string {
	for _, m := range mounts() {
		if m.fstype == "cgroup2" {
			return m.point
		}
	}
	return "/sys/fs/cgroup"
}

// heldHere lists this process's file descriptors of kinds that a spec could leak: BPF objects, namespaces, cgroups.
func heldHere() []string {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil
	}
	var held []string
	for _, entry := range entries {
		target, err := os.Readlink(filepath.Join("/proc/self/fd", entry.Name()))
		if err != nil {
			continue
		}
		for _, kind := range []string{"anon_inode:bpf", "net:[", "/run/evenkeel-sim/", "/evenkeel-sim", "pidfd"} {
			if strings.Contains(target, kind) {
				held = append(held, target)
			}
		}
	}
	slices.Sort(held)
	return held
}

// stillAlive returns those of set that the kernel has not freed.
func stillAlive(set objects) (objects, error) {
	alive, err := objectsAlive()
	if err != nil {
		return nil, err
	}
	left := objects{}
	for o, name := range set {
		if _, is := alive[o]; is {
			left[o] = name
		}
	}
	return left, nil
}

// expectGone fails unless everything of a lab that is down has gone: what remains shows, the objects that it had, and
// the file descriptors of this process beyond those before it was made.
func expectGone(ctx SpecContext, lab string, had objects, held []string) {
	GinkgoHelper()
	Eventually(ctx, func() []string { return remains(lab) }).Should(BeEmpty(), "lab %s leaves nothing behind", lab)
	// The kernel frees programs and maps after a grace period, from a work queue.
	Eventually(ctx, func() ([]string, error) {
		left, err := stillAlive(had)
		return left.describe(), err
	}).Should(BeEmpty(), "lab %s leaves no BPF object alive", lab)
	Eventually(ctx, heldHere).Should(Equal(held), "lab %s leaves no file descriptor open", lab)
}

// aliveBefore is what the kernel had when the suite began.
var aliveBefore objects

// expectNoOrphans waits until no BPF object is left that is new since the suite began and that neither a pin nor a file
// descriptor of any process leads to: something in the kernel keeps it, and nobody can give it back any more. Where
// others use BPF meanwhile it cannot be told whose it is, and it is only reported.
//
// It opens no such object: on Linux 6.18 a prog array that is opened by its number just as its last user lets go of it
// is cleared twice, and where the second clearing is asked for before the first was done, a reference is lost and the
// map stays for ever (prog_array_map_clear in kernel/bpf/arraymap.c takes one for work that is pending already).
func expectNoOrphans() {
	GinkgoHelper()
	old := func(o object, _ string) bool { _, is := aliveBefore[o]; return is }
	others := 0
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	lost, err := objectsAlive()
	Expect(err).NotTo(HaveOccurred())
	maps.DeleteFunc(lost, old)
	// What is on its way out is gone within a grace period.
	for deadline := time.Now().Add(5 * time.Second); len(lost) > 0 && time.Now().Before(deadline); <-tick.C {
		now, err := objectsAlive()
		Expect(err).NotTo(HaveOccurred())
		led, err := reached()
		Expect(err).NotTo(HaveOccurred())
		maps.DeleteFunc(lost, func(o object, _ string) bool {
			_, alive := now[o]
			_, held := led[o]
			return !alive || held
		})
		maps.DeleteFunc(led, old)
		others += len(led)
	}
	if len(lost) > 0 && others > 0 {
		AddReportEntry("others use BPF on this machine; somebody lost", lost.describe(), ReportEntryVisibilityAlways)
		return
	}
	Expect(lost.describe()).To(BeEmpty(), "every BPF object is reached from a pin or a process")
}

// collectOwned adds to what pins below dir lead to what the processes of a cgroup hold.
func collectOwned(dir, cgroup string) (objects, error) {
	roots := objects{}
	pins, err := pinned(dir)
	if err != nil {
		return nil, err
	}
	for _, o := range pins {
		roots[o] = ""
	}
	for _, pid := range processesOf(cgroup) {
		maps.Copy(roots, heldBy(pid))
	}
	return reachable(roots), nil
}

// processesOf returns the pids of a cgroup and those below it.
func processesOf(cgroup string) []string {
	var pids []string
	err := filepath.WalkDir(cgroup, func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.Name() == "cgroup.procs" {
			text, _ := os.ReadFile(path)
			pids = append(pids, strings.Fields(string(text))...)
		}
		return nil
	})
	if err != nil {
		fmt.Fprintln(GinkgoWriter, "walk cgroup:", err)
	}
	return pids
}
