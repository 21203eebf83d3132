// SPDX-License-Identifier: Apache-2.0

package netsim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"

	"golang.org/x/sys/unix"
)

// Process is a process that can be told from a later one with the same pid.
type Process struct {
	PID int `json:"pid"`
	// Start is when it began, in clock ticks since boot: field 22 of /proc/PID/stat, proc(5).
	Start uint64 `json:"start"`
}

// ProcessOf describes a process that exists. One that has ended but was not waited for does not: os.ErrProcessDone.
func ProcessOf(pid int) (Process, error) {
	start, running, err := readStat(pid)
	if err == nil && !running {
		err = os.ErrProcessDone
	}
	if err != nil {
		return Process{}, fmt.Errorf("find process %d: %w", pid, err)
	}
	return Process{pid, start}, nil
}

// Alive tells whether the process still runs. One that has ended but was not waited for does not.
func (p Process) Alive() bool {
	start, running, err := readStat(p.PID)
	return err == nil && running && start == p.Start
}

func readStat(pid int) (start uint64, running bool, err error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, false, err
	}
	// The name of the program is in parentheses and may contain any of them.
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) < 20 {
		return 0, false, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	start, err = strconv.ParseUint(string(fields[19]), 10, 64)
	return start, fields[0][0] != 'Z' && fields[0][0] != 'X', err
}

// Wait returns when the process has ended with all of its threads, or with the context's error. A process that is not
// Alive any more may have threads that end only now, and hold what they have open until then.
func (p Process) Wait(ctx context.Context) error {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("watch process %d: %w", p.PID, err)
	}
	if start, _, err := readStat(p.PID); err != nil || start != p.Start {
		unix.Close(fd)
		return nil // it is another one's number by now
	}
	defer unix.Close(fd)
	for {
		const tick = 100 // milliseconds until the context is asked again
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, tick)
		if n > 0 || ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("watch process %d: %w", p.PID, err)
		}
	}
}

// child is a process that this one started. It is reaped by a goroutine that ends with it; Lab.Down waits for all.
type child struct {
	Process
	done chan struct{} // closed when it has ended
	err  error         // of exec.Cmd.Wait, once done is closed
}

// startChild starts a command whose namespace is the calling thread's. All children of a lab are leaders of their own
// sessions, so that Ctrl-C in the terminal of `sim up` does not reach them.
func startChild(cmd *exec.Cmd, cgroup string) (*child, error) {
	fd, err := unix.Open(cgroup, unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open cgroup %s: %w", cgroup, err)
	}
	defer unix.Close(fd)
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, UseCgroupFD: true, CgroupFD: fd}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	c := &child{done: make(chan struct{})}
	c.Process, err = ProcessOf(cmd.Process.Pid)
	if err != nil { // it has ended already
		c.Process = Process{PID: cmd.Process.Pid}
	}
	go func() {
		defer close(c.done)
		c.err = cmd.Wait()
	}()
	return c, nil
}

// startIn is startChild in the namespace at netns.
func startIn(netns string, cmd *exec.Cmd, cgroup string) (c *child, err error) {
	err = onThread(func() error {
		if err := enterNamespace(netns); err != nil {
			return err
		}
		c, err = startChild(cmd, cgroup)
		return err
	})
	return c, err
}

// waitExit returns how the child ended, or the context's error.
func (c *child) waitExit(ctx context.Context) error {
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// kill ends the child and waits for that.
func (c *child) kill() {
	// ESRCH: it has ended already. Its pid cannot be another's before Wait has returned.
	_ = c.signal(unix.SIGKILL)
	<-c.done
}

// signal sends a signal to the child unless it has ended.
func (c *child) signal(signal unix.Signal) error {
	select {
	case <-c.done:
		return os.ErrProcessDone
	default:
		return c.Signal(signal)
	}
}

// Signal sends a signal to the process and to no later one with its pid. It returns os.ErrProcessDone if it has ended.
func (p Process) Signal(signal unix.Signal) error {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err == nil {
		defer unix.Close(fd)
		if !p.Alive() {
			return os.ErrProcessDone
		}
		err = unix.PidfdSendSignal(fd, signal, nil, 0)
	}
	if errors.Is(err, unix.ESRCH) {
		return os.ErrProcessDone
	}
	if err != nil {
		return fmt.Errorf("signal process %d: %w", p.PID, err)
	}
	return nil
}
