// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/evenkeel/evenkeel/netsim"
)

// threads counts the threads of a process that are stopped, and the others: state T or t in /proc/PID/task/TID/stat.
func threads(p netsim.Process) (stopped, others int, err error) {
	if !p.Alive() {
		return 0, 0, nil
	}
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", p.PID))
	if err != nil {
		return 0, 0, fmt.Errorf("list threads: %w", err)
	}
	for _, task := range tasks {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/stat", p.PID, task.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has ended
		}
		if err != nil {
			return 0, 0, fmt.Errorf("look at thread: %w", err)
		}
		state := text[bytes.LastIndexByte(text, ')')+2]
		if state == 'T' || state == 't' {
			stopped++
		} else {
			others++
		}
	}
	return stopped, others, nil
}

// await asks until something is true, an error comes or the context ends.
func await(ctx context.Context, what string, true func() (bool, error)) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		is, err := true()
		if is || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait until %s: %w", what, ctx.Err())
		}
	}
}

// cgroupOf returns the path of a process in a cgroup hierarchy, from its root: the unified one for "", else that of a
// version 1 controller. ok is false where there is no such hierarchy.
func cgroupOf(pid int, controller string) (path string, ok bool, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return "", false, fmt.Errorf("find cgroup of process %d: %w", pid, err)
	}
	for line := range strings.Lines(string(text)) { // number:controller,…:path
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(fields) < 3 {
			continue
		}
		for name := range strings.SplitSeq(fields[1], ",") {
			if name == controller {
				return fields[2], true, nil
			}
		}
	}
	return "", false, nil
}

// mountPoint returns where a cgroup hierarchy is mounted: that of cgroup2 for "", else of a version 1 controller.
func mountPoint(controller string) (string, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("list mounts: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		before, after, _ := strings.Cut(line, " - ")
		place, kind := strings.Fields(before), strings.Fields(after)
		if len(place) < 5 || len(kind) < 3 || place[3] != "/" {
			continue
		}
		switch {
		case controller == "" && kind[0] == "cgroup2",
			controller != "" && kind[0] == "cgroup" && strings.Contains(","+kind[2]+",", ","+controller+","):
			return place[4], nil
		}
	}
	return "", fmt.Errorf("no cgroup hierarchy %q is mounted", controller)
}
