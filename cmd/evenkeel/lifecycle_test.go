// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/report"
)

func TestLifeOfAnAgent(t *testing.T) {
	n := newNode(t)
	agent := n.startAgent(t)
	pod := n.startClient(t)

	if info, err := os.Stat(n.admin); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("admin socket: %v, %v", info, err)
	}
	if got := pod.round(); got == "ok" {
		t.Error("a pod that is not enrolled reaches the service")
	}
	got := evenkeel(t, "enrol", "--pin-dir", n.dir, "--netns", n.netns, "--pod", "default/client", "--manifests", n.source)
	if got.code != 0 || !strings.Contains(got.stdout, podAddress) {
		t.Fatalf("enrol: %+v", got)
	}
	pod.expectServed("with an agent")
	if s := n.status(t); !s.Healthy || !s.Agent.Ready || s.Agent.PID != agent.Process.Pid {
		t.Errorf("status: %+v, %q", s.Agent, s.Problems)
	}
	n.checkAnswers(t)
	before := n.pins(t)

	if code := agent.end(t, syscall.SIGKILL); code != -1 {
		t.Errorf("exit code %d", code)
	}
	pod.expectServed("with the agent killed")
	if s := n.status(t); s.Healthy || s.Agent.Running || len(s.Workloads) != 1 ||
		!strings.Contains(s.Problems[0], "no agent") {
		t.Errorf("status with the agent killed: %+v", s)
	}
	n.checkAnswersOfPins(t)

	agent = n.startAgent(t)
	pod.expectServed("with the next agent")
	if after := n.pins(t); after != before {
		t.Errorf("pinned before:\n%s\nand after:\n%s", before, after)
	}
	if w := n.status(t).Engine.Writes; w.ServiceIDs+w.Services+w.Slots+w.Endpoints != 0 {
		t.Errorf("nothing has changed, but %+v was written", w)
	}
	n.checkSecondAgent(t, agent, pod)
}

// checkSecondAgent goes on where one agent runs, and ends with nothing installed.
func (n *node) checkSecondAgent(t *testing.T, agent *process, pod *podProcess) {
	t.Helper()
	pid := fmt.Sprint("pid ", agent.Process.Pid)
	got := evenkeel(t, n.agentArgs()...)
	if got.code != 1 || !strings.Contains(got.stderr, pid) || !strings.Contains(got.stderr, "--take-over") {
		t.Errorf("a second agent: %+v", got)
	}
	got = evenkeel(t, "uninstall", "--pin-dir", n.dir, "--yes")
	if got.code != 1 || !strings.Contains(got.stderr, pid) || !strings.Contains(got.stderr, "--take-over") {
		t.Errorf("uninstall beside an agent: %+v", got)
	}
	got = evenkeel(t, "upgrade", "exercise", "--pin-dir", n.dir)
	if got.code != 1 || !strings.Contains(got.stderr, pid) {
		t.Errorf("exercise beside an agent: %+v", got)
	}

	if err := agent.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if s := n.status(t); s.Healthy || !s.Agent.Running || s.Agent.Answers {
		t.Errorf("status of an agent that hangs: %+v", s.Agent)
	}
	next := n.startAgent(t, "--take-over", "--source-check=false")
	<-agent.done
	pod.expectServed("after the next agent has taken over")
	n.waitFor(t, "the source check ends", func() bool { return !n.status(t).Workloads[0].SourceChecked })

	if code := next.end(t, syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d after SIGTERM", code)
	}
	if _, err := os.Stat(n.admin); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the admin socket is left: %v", err)
	}
	pod.expectServed("after SIGTERM")
	n.checkExercise(t, pod)

	if got := evenkeel(t, "uninstall", "--pin-dir", n.dir, "--yes"); got.code != 0 {
		t.Errorf("uninstall: %+v", got)
	}
	if entries, err := os.ReadDir(filepath.Dir(n.dir)); err != nil || slices.ContainsFunc(entries, fs.DirEntry.IsDir) {
		t.Errorf("left: %v, %v", entries, err)
	}
	if got := pod.round(); got == "ok" {
		t.Error("the service is reached though nothing is installed")
	}
}

// checkExercise runs two exercises: the second begins where the number after the one that serves is spent.
func (n *node) checkExercise(t *testing.T, pod *podProcess) {
	t.Helper()
	for range 2 {
		done := make(chan result)
		go func() {
			done <- evenkeel(t, "upgrade", "exercise", "--pin-dir", n.dir, "--cgroup", n.cgroup, "--flips", "50",
				"--interval", "5ms", "-o", "json")
		}()
		var got result
		for running := true; running; {
			pod.expectServed("during the exercise")
			select {
			case got = <-done:
				running = false
			default:
			}
		}
		var d exerciseDocument
		if err := json.Unmarshal([]byte(got.stdout), &d); err != nil || got.code != 0 {
			t.Fatalf("exercise: %v, %+v", err, got)
		}
		if d.Flips != 50 || len(d.Connects) != 2 || d.Moved > d.Carried {
			t.Errorf("exercise: %+v", d)
		}
		pod.expectServed("after the exercise")
	}
	if s := n.status(t); s.Word.Floor != s.Word.Serve || s.Word.Canary != 0 || len(s.Generations) != 1 {
		t.Errorf("after the exercises: %+v, %d generations", s.Word, len(s.Generations))
	}
}

// checkAnswers looks at what the commands say while an agent runs and one pod is enrolled.
func (n *node) checkAnswers(t *testing.T) {
	t.Helper()
	for line, wants := range map[string][]string{
		"dump services":                           {"default/echo", "10.96.0.10:7", "TCP", "UDP", "all.yaml:2"},
		"dump endpoints":                          {"default/echo", "10.9.0.254:9000", "10.9.0.254:9001", "ready"},
		"dump workloads":                          {"default/client", podAddress, n.netns, "default/proxied", "istio-proxy"},
		"dump flows":                              {"default/client", "default/echo", "10.96.0.10:7", "10.9.0.254:9000", "established"},
		"explain default/client echo:7":           {"selected", "next connection gets 10.9.0.254:9000", "generation  1"},
		"explain default/client 10.96.0.10:7/udp": {"selected", "10.9.0.254:9001"},
		"explain default/client echo:8":           {"refused", "refused_no_port"},
		"explain default/client 10.1.1.1:80":      {"passed", "no service has that address"},
		"explain default/proxied echo:7":          {"passed", "not enrolled"},
		"status":                                  {"healthy", "connect4", "default/client", "file:" + n.source},
	} {
		got := n.ask(t, strings.Fields(line)...)
		for _, want := range wants {
			if got.code != 0 || !strings.Contains(got.stdout, want) {
				t.Errorf("%s: exit %d, want %q in\n%s%s", line, got.code, want, got.stdout, got.stderr)
			}
		}
	}
	n.checkUnknown(t, "default/typo 10.96.0.10:7", "default/typo echo:7", "default/client typo:7")
	for path, want := range map[string]string{"/metrics": `evenkeel_workloads{enrolled="yes"} 1`, "/readyz": "ready"} {
		response, err := http.Get("http://127.0.0.1:15090" + path)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s: %v, want %q in\n%s", path, err, want, text)
		}
	}
}

// checkAnswersOfPins looks at what they say without an agent: addresses, where only that knows names.
func (n *node) checkAnswersOfPins(t *testing.T) {
	t.Helper()
	for line, wants := range map[string][]string{
		"dump services":  {"10.96.0.10:7", "TCP", "UDP", "affinity 3h0m0s"},
		"dump endpoints": {"10.9.0.254:9000", "10.9.0.254:9001", "ready, as found"},
		"dump workloads": {"default/client", podAddress},
		"dump flows":     {"default/client", "10.96.0.10:7", "10.9.0.254:9000", "established"},
		"explain default/client 10.96.0.10:7/udp": {"selected", "10.9.0.254:9001"},
		"explain default/client 10.96.0.10:8":     {"refused"},
	} {
		got := n.ask(t, strings.Fields(line)...)
		for _, want := range wants {
			if got.code != 0 || !strings.Contains(got.stdout, want) {
				t.Errorf("%s: exit %d, want %q in\n%s%s", line, got.code, want, got.stdout, got.stderr)
			}
		}
	}
	n.checkUnknown(t, "default/typo 10.96.0.10:7")
	var d report.Endpoints
	if got := n.ask(t, "dump", "endpoints", "-o", "json"); json.Unmarshal([]byte(got.stdout), &d) != nil ||
		len(d.Endpoints) == 0 {
		t.Errorf("endpoints: %+v", got)
	}
	for _, x := range d.Endpoints {
		if !x.Ready || !x.Serving || x.Terminating {
			t.Errorf("%s takes traffic, but is shown as %+v", x.Address, x)
		}
	}
	if got := n.ask(t, "explain", "default/client", "echo:7"); got.code != 1 || !strings.Contains(got.stderr, "address") {
		t.Errorf("explain by name: %+v", got)
	}
}

// checkUnknown asks about a pod or a service that is not there: a typo must not look like an answer.
func (n *node) checkUnknown(t *testing.T, questions ...string) {
	t.Helper()
	for _, q := range questions {
		got := n.ask(t, append([]string{"explain"}, strings.Fields(q)...)...)
		if got.code != 1 || !strings.Contains(got.stdout, ": unknown") {
			t.Errorf("explain %s: %+v", q, got)
		}
	}
}
