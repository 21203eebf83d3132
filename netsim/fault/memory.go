// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/netsim"
)

// OutOfMemory has the kernel's OOM killer end a process: it is moved to a memory cgroup of its own together with
// another process that uses up the limit, and made the one to be chosen (oom_score_adj).
type OutOfMemory struct {
	Agent   *Agent         `json:"agent,omitempty"`
	Process netsim.Process `json:"process"`
	// Self is as in Options: it leads to the process that uses up memory.
	Self []string `json:"self"`
	// From and Cgroup are where the process was and is put; Prepare sets them.
	From   string `json:"from"`
	Cgroup string `json:"cgroup"`
	// Unified tells that it is cgroup2.
	Unified bool   `json:"unified"`
	Score   string `json:"score"` // oom_score_adj before
}

// memoryLimit is what the cgroup may have, bytes. It is more than an agent has itself in most cases, but need not be: the
// agent's memory stays accounted to where it came from.
const memoryLimit = 32 << 20

func (o *OutOfMemory) String() string { return "out-of-memory " + victim(o.Agent, o.Process) }

// Prepare finds the memory controller.
func (o *OutOfMemory) Prepare(context.Context) error {
	if err := find(o.Agent, &o.Process); err != nil {
		return err
	}
	name := fmt.Sprintf("evenkeel-fault-%d-%d", o.Process.PID, o.Process.Start)
	path, v1, err := cgroupOf(o.Process.PID, "memory")
	if err != nil {
		return err
	}
	controller := "memory"
	if !v1 {
		controller = ""
		if path, _, err = cgroupOf(o.Process.PID, ""); err != nil {
			return err
		}
	}
	root, err := mountPoint(controller)
	if err != nil {
		return err
	}
	o.Unified, o.From, o.Cgroup = !v1, filepath.Join(root, path), filepath.Join(root, name)
	if o.Unified {
		text, err := os.ReadFile(filepath.Join(root, "cgroup.subtree_control"))
		if err != nil || !slices.Contains(strings.Fields(string(text)), "memory") {
			return errors.Join(fmt.Errorf("the memory controller is not enabled in %s", root), err)
		}
	}
	score, err := os.ReadFile(o.scoreFile())
	if err != nil {
		return fmt.Errorf("read score: %w", err)
	}
	o.Score = string(bytes.TrimSpace(score))
	return nil
}

func (o *OutOfMemory) scoreFile() string { return fmt.Sprintf("/proc/%d/oom_score_adj", o.Process.PID) }

// Inject returns when the kernel has killed the process.
func (o *OutOfMemory) Inject(ctx context.Context) (err error) {
	if err := os.Mkdir(o.Cgroup, 0o755); err != nil {
		return fmt.Errorf("make memory cgroup: %w", err)
	}
	limit := "memory.limit_in_bytes"
	if o.Unified {
		limit = "memory.max"
	}
	for _, w := range []struct{ file, value string }{
		{filepath.Join(o.Cgroup, limit), strconv.Itoa(memoryLimit)},
		{o.scoreFile(), "1000"},
		{filepath.Join(o.Cgroup, "cgroup.procs"), strconv.Itoa(o.Process.PID)},
	} {
		if err := os.WriteFile(w.file, []byte(w.value), 0); err != nil {
			return fmt.Errorf("set up memory cgroup: %w", err)
		}
	}
	args := append(slices.Clone(o.Self), hogCommand, o.Cgroup)
	hog := exec.Command(args[0], args[1:]...)
	hog.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	if err := hog.Start(); err != nil {
		return fmt.Errorf("start process that uses up memory: %w", err)
	}
	ended := make(chan error, 1)
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		ended <- hog.Wait()
		cancel()
	}()
	err = o.Process.Wait(waiting)
	_ = hog.Process.Kill() // unless it was the next to be chosen
	if used := <-ended; err != nil && o.Process.Alive() {
		return fmt.Errorf("wait for the OOM killer: %w", cmp.Or(ctx.Err(), used, err))
	}
	return ctx.Err()
}

// Heal removes the cgroup, starts the agent, or puts the process back where it was if it lives.
func (o *OutOfMemory) Heal(ctx context.Context) error {
	if o.Process.Alive() {
		err := errors.Join(os.WriteFile(filepath.Join(o.From, "cgroup.procs"), []byte(strconv.Itoa(o.Process.PID)), 0),
			os.WriteFile(o.scoreFile(), []byte(o.Score), 0))
		if err != nil && o.Process.Alive() {
			return fmt.Errorf("put process %d back: %w", o.Process.PID, err)
		}
	}
	if err := emptyCgroup(ctx, o.Cgroup); err != nil {
		return err
	}
	if o.Agent == nil {
		return nil
	}
	return o.Agent.start(ctx)
}

// emptyCgroup kills what is in a cgroup and removes it.
func emptyCgroup(ctx context.Context, path string) error {
	return await(ctx, "cgroup "+path+" is empty", func() (bool, error) {
		text, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		if errors.Is(err, fs.ErrNotExist) {
			return true, nil
		}
		for _, field := range bytes.Fields(text) {
			// 0 stands for a process that cannot be seen from here; to kill(2) it is this process group.
			if pid, err := strconv.Atoi(string(field)); err == nil && pid > 0 {
				_ = unix.Kill(pid, unix.SIGKILL) // it may have ended
			}
		}
		err = unix.Rmdir(path)
		if errors.Is(err, unix.EBUSY) {
			return false, nil
		}
		if errors.Is(err, unix.ENOENT) {
			err = nil
		}
		return err == nil, err
	})
}

// Active is how many processes the OOM killer has ended in the cgroup, 0 if the one that was meant lives.
func (o *OutOfMemory) Active(context.Context) (uint64, error) {
	file := "memory.oom_control"
	if o.Unified {
		file = "memory.events"
	}
	text, err := os.ReadFile(filepath.Join(o.Cgroup, file))
	if err != nil {
		return 0, fmt.Errorf("read OOM counter: %w", err)
	}
	_, after, found := bytes.Cut(text, []byte("oom_kill "))
	if !found {
		return 0, fmt.Errorf("%s of %s has no oom_kill", file, o.Cgroup)
	}
	number, _, _ := bytes.Cut(after, []byte("\n"))
	n, err := strconv.ParseUint(string(number), 10, 64)
	if o.Process.Alive() {
		n = 0
	}
	return n, err
}

// hog is the process that uses up the memory of a cgroup until it is ended.
func hog(args []string) error {
	if len(args) != 1 {
		return errors.New("fault: hog needs a cgroup")
	}
	if err := os.WriteFile(filepath.Join(args[0], "cgroup.procs"), []byte("0"), 0); err != nil {
		return fmt.Errorf("enter memory cgroup: %w", err)
	}
	// A file in memory, because what is mapped would make this process the larger one.
	fd, err := unix.MemfdCreate("hog", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("make file in memory: %w", err)
	}
	part := make([]byte, 1<<20)
	for range 2 * memoryLimit / len(part) {
		if _, err := unix.Write(fd, part); err != nil {
			return fmt.Errorf("fill file in memory: %w", err)
		}
	}
	return fmt.Errorf("more than %d bytes fit into a cgroup of that size", memoryLimit)
}
