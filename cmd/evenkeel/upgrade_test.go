// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/plane"
	"github.com/evenkeel/evenkeel/upgrade"
)

// otherRelease writes a release that differs from this one in a constant: it lets pass what has no port.
func (n *node) otherRelease(t *testing.T) string {
	t.Helper()
	sizes, err := pinnedSizes(n.dir)
	if err != nil {
		t.Fatal(err)
	}
	r, err := upgrade.ReleaseOf(plane.Of(sizes))
	if err != nil {
		t.Fatal(err)
	}
	config := append([]byte(nil), r.Variables["config"]...)
	config[4] ^= 2 // CONTROL_MISS_PASSES
	r.Variables["config"], r.Label = config, "another"
	path := filepath.Join(t.TempDir(), "another.release")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := r.Write(f); err != nil {
		t.Fatal(err)
	}
	return path
}

func decode[T any](t *testing.T, got result) (d T) {
	t.Helper()
	if err := json.Unmarshal([]byte(got.stdout), &d); err != nil {
		t.Fatalf("%v: %+v", err, got)
	}
	return d
}

// A release comes and goes while a pod's connections run, by hand and by the start of an agent.
func TestUpgradeOfANode(t *testing.T) {
	n := newNode(t)
	agent := n.startAgent(t)
	pod := n.startClient(t)
	got := evenkeel(t, "enrol", "--pin-dir", n.dir, "--netns", n.netns, "--pod", "default/client", "--manifests", n.source)
	if got.code != 0 {
		t.Fatalf("enrol: %+v", got)
	}
	pod.expectServed("before")
	other := n.otherRelease(t)
	run := func(args ...string) result {
		t.Helper()
		return evenkeel(t, append([]string{"upgrade", args[0], "--pin-dir", n.dir}, args[1:]...)...)
	}
	owner := func(args ...string) result {
		t.Helper()
		return run(append(args, "-o", "json")...) // in the cgroup that it is attached to
	}

	if got := run("plan"); got.code != 0 || !strings.Contains(got.stdout, "nothing to do") {
		t.Errorf("plan of what serves: %+v", got)
	}
	p := decode[planDocument](t, run("plan", "--to", other, "-o", "json"))
	if p.Same || p.Rollback != "word" || !p.Canary || p.To.Label != "another" {
		t.Errorf("plan: %+v", p.Plan)
	}
	if got := run("verify", "--to", other); got.code != 0 {
		t.Errorf("verify: %+v", got)
	}
	if got := owner("apply", "--to", other); got.code != 1 || !strings.Contains(got.stderr, "--take-over") {
		t.Errorf("apply beside an agent: %+v", got)
	}
	if a := decode[applyDocument](t, owner("apply", "--to", other, "--take-over")); !a.Applied || a.Serve != 2 {
		t.Errorf("apply: %+v", a)
	}
	<-agent.done
	pod.expectServed("by the other release")
	if s := decode[upgradeStatusDocument](t, run("status", "-o", "json")); s.Previous != 1 || len(s.Generations) != 2 || len(s.Damages) > 0 {
		t.Errorf("status: %+v", s)
	}
	pin, aside := filepath.Join(n.dir, "maps", "workloads"), n.dir+"-aside"
	t.Cleanup(func() { _ = os.Remove(aside) }) // if it was not put back
	if err := os.Rename(pin, aside); err != nil {
		t.Fatal(err)
	}
	if s := decode[upgradeStatusDocument](t, run("status", "-o", "json")); len(s.Damages) != 1 || s.Damages[0].Path != "maps/workloads" {
		t.Errorf("status while a pin is gone: %+v", s)
	}
	if err := os.Rename(aside, pin); err != nil {
		t.Fatal(err)
	}
	if a := decode[applyDocument](t, owner("rollback", "--reason", "a test")); a.Serve != 1 {
		t.Errorf("rollback: %+v", a)
	} else {
		t.Logf("a rollback took %.0f ms, the kernel served by it after %.0f ms", a.Seconds*1000, a.Switched*1000)
	}
	pod.expectServed("after going back")
	if got := owner("rollback"); got.code != 1 || !strings.Contains(got.stderr, "no generation to go back to") {
		t.Errorf("going back twice: %+v", got)
	}
	if a := decode[applyDocument](t, owner("apply", "--to", other)); !a.Applied {
		t.Errorf("apply again: %+v", a)
	}
	if got := owner("exercise"); got.code != 1 || !strings.Contains(got.stderr, "'evenkeel upgrade apply'") {
		t.Errorf("an exercise of another release does not say what to do: %+v", got)
	}

	if got := evenkeel(t, append(n.agentArgs(), "--on-start", "refuse")...); got.code != 1 || !strings.Contains(got.stderr, "release") {
		t.Errorf("an agent that is told to refuse: %+v", got)
	}
	got = evenkeel(t, append(n.agentArgs(), "--on-start", "refuse", "--max-services", "30000")...)
	for _, want := range []string{"--max-services was 20000, is 30000", "evenkeel upgrade apply --max-services 30000"} {
		if got.code != 1 || !strings.Contains(got.stderr, want) {
			t.Errorf("an agent with another size that is told to refuse does not say %q: %+v", want, got)
		}
	}
	agent = n.startAgent(t, "--max-services", "30000")
	pod.expectServed("by the agent's release, with more room")
	if s := n.status(t); !s.Healthy || s.Differs {
		t.Errorf("status: %q, differs %v", s.Problems, s.Differs)
	}
	for _, m := range n.status(t).Maps {
		if m.Map == "services" && m.Capacity != 30_000 {
			t.Errorf("room for %d services", m.Capacity)
		}
	}
	if code := agent.end(t, syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
	h := decode[historyDocument](t, run("history", "-o", "json"))
	var kinds []string
	for _, e := range h.Events {
		kinds = append(kinds, e.Kind.String())
	}
	const want = "install upgrade rollback upgrade upgrade"
	if got := strings.Join(kinds, " "); got != want || h.Events[2].Text != "a test" {
		t.Errorf("history: %s", got)
	}
	for _, line := range []string{"status", "history", "verify"} {
		if got := run(line); got.code != 0 {
			t.Errorf("%s: %+v", line, got)
		}
	}
}

// A release that was rolled back is not served again by the start of its agent.
func TestRolledBackReleaseIsNotTriedAgain(t *testing.T) {
	n := newNode(t)
	agent := n.startAgent(t)
	agent.end(t, syscall.SIGTERM)
	other := n.otherRelease(t)
	for _, args := range [][]string{{"apply", "--to", other}, {"apply"}, {"exercise"}, {"rollback"}} {
		got := evenkeel(t, append([]string{"upgrade", args[0], "--pin-dir", n.dir, "--cgroup", n.cgroup}, args[1:]...)...)
		if args[0] == "exercise" {
			if got.code != 1 || !strings.Contains(got.stderr, "'evenkeel upgrade retire'") {
				t.Errorf("an exercise while an old generation is kept does not say what to do: %+v", got)
			}
		} else if got.code != 0 {
			t.Fatalf("%v: %+v", args, got)
		}
	}
	n.startAgent(t)
	s := n.status(t)
	if !s.Differs {
		t.Errorf("the release that was rolled back serves again: %+v", s.Word)
	}
}
