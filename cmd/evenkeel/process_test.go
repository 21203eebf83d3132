// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/report"
)

// process is an agent that runs.
type process struct {
	*exec.Cmd
	log  *bytes.Buffer
	done chan struct{}
}

// startAgent returns when the agent says that it is ready.
func (n *node) startAgent(t *testing.T, more ...string) *process {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	told, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer told.Close()
	a := &process{Cmd: exec.Command("/proc/self/exe", append(n.agentArgs(), more...)...), log: &bytes.Buffer{},
		done: make(chan struct{})}
	a.Env = append(os.Environ(), roleVariable+"="+roleCommand, "NOTIFY_SOCKET="+path)
	a.Stderr = a.log
	if err := a.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = a.Wait() // how it ended is in ProcessState
		close(a.done)
	}()
	t.Cleanup(func() {
		_ = a.Process.Kill() // it may have ended
		<-a.done
		if t.Failed() {
			t.Logf("agent:\n%s", a.log)
		}
	})
	go func() { // an agent that ends is not waited for
		<-a.done
		_ = told.SetReadDeadline(time.Now()) // cannot fail on a socket
	}()
	buffer := make([]byte, 1024)
	size, err := told.Read(buffer)
	if err != nil || !strings.HasPrefix(string(buffer[:size]), "READY=1") {
		t.Fatalf("the agent did not become ready: %q, %v\n%s", buffer[:size], err, a.log)
	}
	return a
}

// startOther starts an agent of a data plane of its own.
func (n *node) startOther(t *testing.T, more ...string) *process {
	t.Helper()
	other := *n
	other.dir, other.cgroup = n.dir+"2", filepath.Join(n.cgroup, "other")
	if err := os.Mkdir(other.cgroup, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		got := evenkeel(t, "uninstall", "--pin-dir", other.dir, "--take-over")
		if err := os.Remove(other.cgroup); got.code != 0 || err != nil {
			t.Errorf("%+v, %v", got, err)
		}
	})
	return other.startAgent(t, more...)
}

func (n *node) agentArgs() []string {
	return []string{"agent", "--node", "n1", "--source", n.source, "--pin-dir", n.dir, "--cgroup", n.cgroup,
		"--admin", n.admin, "--metrics", "127.0.0.1:15090"}
}

// end sends a signal and returns the exit code, -1 if the signal has killed it.
func (a *process) end(t *testing.T, signal syscall.Signal) int {
	t.Helper()
	if err := a.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
	<-a.done
	return a.ProcessState.ExitCode()
}

// ask runs a command that reads.
func (n *node) ask(t *testing.T, args ...string) result {
	t.Helper()
	return evenkeel(t, append(args, "--pin-dir", n.dir, "--admin", n.admin)...)
}

func (n *node) status(t *testing.T) report.Status {
	t.Helper()
	var s report.Status
	got := n.ask(t, "status", "-o", "json")
	if err := json.Unmarshal([]byte(got.stdout), &s); err != nil {
		t.Fatalf("%v: %+v", err, got)
	}
	if s.Healthy != (got.code == 0) {
		t.Errorf("healthy %v, exit %d", s.Healthy, got.code)
	}
	return s
}

// waitFor returns once something is so that nothing tells of.
func (n *node) waitFor(t *testing.T, what string, so func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for begin := time.Now(); !so(); <-tick.C {
		if time.Since(begin) > 10*time.Second {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

// pins is everything pinned, by path, with the ids that status shows.
func (n *node) pins(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(n.dir, func(path string, _ fs.DirEntry, err error) error {
		fmt.Fprintln(&b, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	s := n.status(t)
	for _, h := range s.Hooks {
		fmt.Fprintln(&b, h.Name, h.Entry, h.Link, h.Target, h.Slots)
	}
	for _, g := range s.Generations {
		fmt.Fprintln(&b, g.Number, g.Digest, g.Maps, g.Programs)
	}
	return b.String()
}
