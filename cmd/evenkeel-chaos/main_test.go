// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/cmd/internal/command"
	"github.com/evenkeel/evenkeel/netsim/flow/record"
)

// evenkeelChaos runs a command line and returns what it printed.
func evenkeelChaos(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = command.Run(t.Context(), newRootCommand, command.Env{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &err,
		Getenv: func(string) string { return "" }}, args)
	return code, out.String(), err.String()
}

// recorded writes a recording of one flow that was late by some in the second of two phases.
func recorded(t *testing.T, lateness time.Duration) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "client.ndjson")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	const s = int64(time.Second)
	w := record.NewWriter(file, "client", "")
	for _, line := range []any{
		&record.Flow{ID: 1, Name: "shop", Kind: "grpc", To: "10.96.0.10:80"},
		&record.Phase{Time: s, Name: "before", FaultFree: true}, &record.Phase{Time: 3 * s, Name: "kill"},
		&record.Window{Flow: 1, From: 3 * s / 2, To: 2 * s, Received: 50},
		&record.Late{Flow: 1, Due: 4 * s, Received: 4*s + int64(lateness), Lateness: int64(lateness)},
		&record.Done{Flow: 1, Stop: 5 * s, Sent: 400, Received: 400},
	} {
		w.Write(line)
	}
	if err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestJudge(t *testing.T) {
	code, out, _ := evenkeelChaos(t, "judge", recorded(t, 5*time.Millisecond))
	if code != 0 || !strings.HasPrefix(out, "passed: 1 flows intact, 0 stalled, 0 broken") {
		t.Errorf("exit status %d: %s", code, out)
	}
	code, out, _ = evenkeelChaos(t, "judge", recorded(t, 50*time.Millisecond))
	if code != 1 || !strings.HasPrefix(out, "failed: 0 flows intact, 1 stalled") || !strings.Contains(out, "shop  grpc") ||
		!strings.Contains(out, "50.0 ms beyond the schedule, 10.0 ms are allowed") {
		t.Errorf("exit status %d: %s", code, out)
	}
	code, out, _ = evenkeelChaos(t, "judge", "-o", "json", recorded(t, 50*time.Millisecond))
	var told struct {
		Verdict  string
		WorstGap float64 `json:"worst_gap_ms"`
		Budget   float64 `json:"budget_ms"`
		Flows    struct{ Intact, Stalled, Broken int }
	}
	if err := json.Unmarshal([]byte(out), &told); err != nil || code != 1 {
		t.Fatalf("exit status %d, %v: %s", code, err, out)
	}
	if told.Verdict != "failed" || told.Flows.Stalled != 1 || told.WorstGap != 50 || told.Budget != 10 {
		t.Errorf("%+v", told)
	}
}

func TestWrongCommandLines(t *testing.T) {
	for line, want := range map[string]string{
		"juge x":              `unknown command "juge", did you mean judge?`,
		"judge":               "needs a recording",
		"fault inject":        "want NAME TARGET",
		"fault trace":         "needs one agent",
		"fault ls -o xml":     `--output "xml"`,
		"judge -o xml x":      `--output "xml"`,
		"run --label (a":      `--label "(a"`,
		"run --dataplane x":   `--dataplane "x"`,
		"run --report /no/x":  "there is no directory /no",
		"run --binaries /no":  "there is no evenkeel to test",
		"run --ztunnel /no":   "cannot be executed",
		"run tier:smoke":      `"tier:smoke" is one too many`,
		"judge --frobnicate":  "unknown flag",
		"flow relay --to x":   `--to "x"`,
		"flow cleint":         "did you mean client",
		"flow client nothing": `"nothing" is one too many`,
	} {
		code, _, text := evenkeelChaos(t, strings.Fields(line)...)
		if code != 2 || !strings.Contains(text, want) || !strings.Contains(text, "--help'") {
			t.Errorf("%s: exit status %d: %s", line, code, text)
		}
	}
	if code, _, text := evenkeelChaos(t, "judge", "/no/such/file"); code != 1 || !strings.Contains(text, "/no/such/file") {
		t.Errorf("exit status %d: %s", code, text)
	}
	if code, out, _ := evenkeelChaos(t); code != 0 || !strings.Contains(out, "judge") || strings.Contains(out, "relay") {
		t.Errorf("exit status %d: %s", code, out)
	}
}

func TestFaultsAreCompleted(t *testing.T) {
	for line, want := range map[string]string{"": "delay\t", "delay wire/a,b": "jitter=\n"} {
		args := append([]string{"__complete", "fault", "inject"}, strings.Fields(line)...)
		if code, out, _ := evenkeelChaos(t, append(args, "")...); code != 0 || !strings.Contains(out, want) {
			t.Errorf("%q: exit status %d: %s", line, code, out)
		}
	}
}

func TestVersion(t *testing.T) {
	if code, out, _ := evenkeelChaos(t, "--version"); code != 0 || !strings.HasPrefix(out, "evenkeel-chaos version ") {
		t.Errorf("exit status %d: %s", code, out)
	}
}

func TestFaultList(t *testing.T) {
	code, out, _ := evenkeelChaos(t, "fault", "ls")
	if code != 0 || !strings.Contains(out, "PROCESS") || !strings.Contains(out, "delay=20ms") {
		t.Errorf("exit status %d: %s", code, out)
	}
	code, out, _ = evenkeelChaos(t, "fault", "ls", "-o", "json")
	var kinds []struct {
		Name, Group, Target string
		Params              []struct{ Name, Default string }
	}
	if err := json.Unmarshal([]byte(out), &kinds); err != nil || code != 0 || len(kinds) < 30 {
		t.Errorf("exit status %d, %d faults, %v", code, len(kinds), err)
	}
}
