// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// An agent that cannot be asked does not upgrade the node first: what serves is what was, and the one before can start
// again.
func TestUpgradeByAgentWhosePortIsTaken(t *testing.T) {
	n := newNode(t)
	agent := n.startAgent(t)
	if err := agent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-agent.done
	busy, err := net.Listen("tcp", "127.0.0.1:15091")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	before, word := n.pins(t), n.status(t).Word
	got := evenkeel(t, append(n.agentArgs(), "--max-services", "99", "--metrics", "127.0.0.1:15091")...)
	if got.code != 1 || !strings.Contains(got.stderr, fmt.Sprintf("already in use by pid %d (", os.Getpid())) {
		t.Errorf("%+v", got)
	}
	if after := n.status(t).Word; after.Serve != word.Serve || after.Floor != word.Floor {
		t.Errorf("it served %+v, and does %+v", word, after)
	}
	if after := n.pins(t); after != before {
		t.Errorf("pinned before:\n%s\nand after:\n%s", before, after)
	}
	theirs := filepath.Join(t.TempDir(), "admin.sock")
	other, err := net.Listen("unix", theirs)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	got = evenkeel(t, append(n.agentArgs(), "--max-services", "99", "--admin", theirs)...)
	if got.code != 1 || !strings.Contains(got.stderr, "--admin") {
		t.Errorf("%+v", got)
	}
	if after := n.pins(t); after != before {
		t.Errorf("pinned before:\n%s\nand after:\n%s", before, after)
	}
	n.startAgent(t, "--on-start", "refuse")
}

// An agent that is told to take over, and cannot run, costs the one that runs nothing.
func TestTakeOverThatMustFail(t *testing.T) {
	n := newNode(t)
	agent := n.startAgent(t)
	busy, err := net.Listen("tcp", "127.0.0.1:15091")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	theirs := filepath.Join(t.TempDir(), "admin.sock")
	other, err := net.Listen("unix", theirs)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	before := n.pins(t)
	for _, test := range []struct {
		name, want string
		flags      []string
	}{
		{"another layout", "--max", []string{"--on-start", "adopt", "--max-services", "99"}},
		{"a busy port", fmt.Sprintf("already in use by pid %d (", os.Getpid()), []string{"--metrics", "127.0.0.1:15091"}},
		{"a port that is busy on one address", "--metrics", []string{"--metrics", ":15091"}},
		{"a socket of another process", "--admin", []string{"--admin", theirs}},
	} {
		got := evenkeel(t, append(append(n.agentArgs(), "--take-over"), test.flags...)...)
		if got.code != 1 || !strings.Contains(got.stderr, test.want) {
			t.Errorf("%s: %+v", test.name, got)
		}
		if s := n.status(t); !s.Healthy || s.Agent.PID != agent.Process.Pid {
			t.Fatalf("%s: %+v, %q", test.name, s.Agent, s.Problems)
		}
	}
	t.Run("a process that is stopped", func(t *testing.T) {
		frozen := n.startOther(t, "--admin", theirs+".2", "--metrics", "127.0.0.1:15092")
		if err := frozen.Process.Signal(unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		pid := frozen.Process.Pid
		if err := unix.Waitid(unix.P_PID, pid, nil, unix.WSTOPPED|unix.WNOWAIT, nil); err != nil {
			t.Fatal(err)
		}
		for _, flags := range [][]string{{"--admin", theirs + ".2"}, {"--metrics", "127.0.0.1:15092"}} {
			got := evenkeel(t, append(append(n.agentArgs(), "--take-over"), flags...)...)
			for _, want := range []string{flags[0], fmt.Sprintf("stopped pid %d (/proc/self/exe agent ", pid),
				fmt.Sprintf("kill -CONT %d", pid), fmt.Sprintf("kill -KILL %d", pid)} {
				if got.code != 1 || !strings.Contains(got.stderr, want) {
					t.Errorf("%q: %+v, want %q", flags, got, want)
				}
			}
			if s := n.status(t); !s.Healthy || s.Agent.PID != agent.Process.Pid {
				t.Fatalf("%q: %+v, %q", flags, s.Agent, s.Problems)
			}
		}
	})
	if after := n.pins(t); after != before {
		t.Errorf("pinned before:\n%s\nand after:\n%s", before, after)
	}
	next := n.startAgent(t, "--take-over", "--metrics", ":15090") // the port that the incumbent has
	<-agent.done
	if s := n.status(t); !s.Healthy || s.Agent.PID != next.Process.Pid {
		t.Errorf("after a take-over: %+v, %q", s.Agent, s.Problems)
	}
}
