// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/evenkeel/evenkeel/cmd/internal/command"
	"github.com/evenkeel/evenkeel/netsim"
)

func TestSimUsage(t *testing.T) {
	for line, want := range map[string]string{
		"sim up":                              "arg",
		"sim up a b":                          "arg",
		"sim down":                            "FILE, --name NAME and --all",
		"sim down a.yaml --all":               "FILE, --name NAME and --all",
		"sim exec":                            "a pod or node, and a command",
		"sim exec pod":                        "a pod or node, and a command",
		"sim graph --format png":              `"png"`,
		"sim ls -o yaml":                      `"yaml"`,
		"sim logs a b":                        "arg",
		"sim sideways":                        `"sideways"`,
		"sim up --no-such-flag":               "no-such-flag",
		"sim enter --netns /x --cgroup /y":    "a command",
		"sim inspect one two":                 "arg",
		"sim inspect one --name two":          "one lab at a time",
		"sim graph one --name two":            "one lab at a time",
		"sim apply":                           "arg",
		"sim gc everything":                   "arg",
		"sim serve --pod p":                   "a server",
		"sim exec --no-such-flag pod -- true": "no-such-flag",
	} {
		got := evenkeel(t, strings.Fields(line)...)
		if got.code != 2 || !strings.Contains(got.stderr, want) || !strings.Contains(got.stderr, "--help") {
			t.Errorf("%s: %+v", line, got)
		}
	}
}

func TestSimNamesWhatIsNotThere(t *testing.T) {
	for _, line := range []string{"sim exec --name nowhere pod -- true", "sim inspect nowhere", "sim inspect --name nowhere", "sim logs --name nowhere",
		"sim graph --name nowhere", "sim up /no/nowhere.yaml"} {
		if got := evenkeel(t, strings.Fields(line)...); got.code != 1 || !strings.Contains(got.stderr, "nowhere") {
			t.Errorf("%s: %+v", line, got)
		}
	}
}

// What was left halfway is nobody's choice: it neither hides the only lab nor is taken for it.
func TestOnlyLab(t *testing.T) {
	up := func(name string) (bool, error) { return strings.HasPrefix(name, "up"), nil }
	for labs, want := range map[string]string{
		"up1": "up1", "half1 up1 half2": "up1", "": "evenkeel sim up FILE", "half1 half2": "half1, half2: evenkeel sim gc",
		"up1 half1 up2": "choose one of up1, up2 with --name",
	} {
		name, err := onlyLab(strings.Fields(labs), up)
		if err != nil {
			name = err.Error()
		}
		if !strings.Contains(name, want) {
			t.Errorf("of %q: %s, want %q", labs, name, want)
		}
	}
}

func TestChangesText(t *testing.T) {
	all := netsim.Changes{PodsAdded: 1, NodesRemoved: 2, Manifests: 3, AgentsStarted: 4, AgentsStopped: 5, PodsEnrolled: 6,
		PodsWithdrawn: 7}
	const want = "pods +1, nodes -2, files of documents changed: 3, agents started: 4, agents stopped: 5, pods enrolled: 6, " +
		"pods withdrawn: 7"
	if got := changesText(all); got != want {
		t.Errorf("%s", got)
	}
	if got := changesText(netsim.Changes{}); got != "nothing had to be changed" {
		t.Errorf("%s", got)
	}
}

func TestReadTopology(t *testing.T) {
	const text = "apiVersion: netsim.evenkeel.io/v1\nkind: Topology\nmetadata: {name: demo}\n" +
		"spec: {nodes: [{name: a, podCIDRs: [10.10.1.0/24]}]}\n"
	if topology, err := readTopology(strings.NewReader(text), "-", "second"); err != nil || topology.Name != "second" {
		t.Errorf("%+v, %v", topology, err)
	}
	if _, err := readTopology(strings.NewReader("kind: 3"), "-", ""); err == nil ||
		!strings.Contains(err.Error(), "standard input") {
		t.Errorf("%v", err)
	}
	dir := t.TempDir()
	if _, err := readTopology(nil, dir, ""); err == nil || strings.Count(err.Error(), "read "+dir) != 1 {
		t.Errorf("%v", err)
	}
}

func TestDownOfNothing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	got := evenkeel(t, "sim", "down", "--name", "cli-test-nope")
	if got.code != 0 || got.stdout != "lab cli-test-nope was not up\n" {
		t.Errorf("%+v", got)
	}
}

// Every command of sim that people see says what it does and shows how.
func TestSimHelps(t *testing.T) {
	for _, c := range newSimCommand(command.Env{}).Commands() {
		if !c.Hidden && (c.Short == "" || c.Example == "") {
			t.Errorf("sim %s has no description or no example", c.Name())
		}
	}
}

// The file that the help shows can be used as it stands.
func TestSimHelpHasATopology(t *testing.T) {
	long := newSimCommand(command.Env{}).Long
	_, text, _ := strings.Cut(long, "\n\n  apiVersion")
	text, _, _ = strings.Cut("  apiVersion"+text, "\n\n")
	topology, err := readTopology(strings.NewReader(strings.ReplaceAll("\n"+text, "\n  ", "\n")), "-", "")
	if err != nil || !strings.Contains(topology.Documents, "10.96.0.10") {
		t.Errorf("%v: %s", err, text)
	}
}

// What is followed comes once, in whole lines, whenever it is written.
func TestLogsAreFollowed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.log")
	log := &logFile{path: path, prefix: "a | "}
	var written string
	for _, step := range []struct{ add, want string }{
		{"", ""}, {"one\ntw", "a | one\n"}, {"o", ""}, {"\n\nfour\n", "a | two\na | \na | four\n"}, {"rest", ""},
	} {
		written += step.add
		if written != "" {
			if err := os.WriteFile(path, []byte(written), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		var out bytes.Buffer
		if err := log.copyTo(&out, false); err != nil || out.String() != step.want {
			t.Errorf("after %q: %q, %v", step.add, &out, err)
		}
	}
	var out bytes.Buffer
	if err := log.copyTo(&out, true); err != nil || out.String() != "a | rest\n" {
		t.Errorf("at the end: %q, %v", &out, err)
	}
}

func TestProgressIsForTerminals(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(&out)
	p.show("pods", 1, 2)
	p.clear()
	if out.Len() > 0 {
		t.Errorf("%q was written where no terminal is", &out)
	}
	p = &progress{out: &out}
	p.show("pods", 1, 2)
	p.show("pods", 2, 2)
	p.clear()
	if got := out.String(); !strings.Contains(got, "pods 1/2") || !strings.HasSuffix(got, "pods 2/2\r\x1b[K") {
		t.Errorf("%q", got)
	}
}

func TestPrintLab(t *testing.T) {
	table := &table{}
	printLab(table, netsim.Info{Name: "demo",
		Nodes: []netsim.NodeInfo{{Name: "a", PinDir: "/pins/a",
			Agent: netsim.AgentInfo{State: netsim.AgentDead, PID: 7, Admin: "/a.sock"}}},
		Wires: []netsim.WireInfo{{Between: [2]string{"a", "b"}, MTU: 1400, Link: "wire0"}},
		Pods: []netsim.PodInfo{{Namespace: "shop", Name: "web", Node: "a", Refusal: "has a sidecar",
			Processes: []netsim.ProcessInfo{{PID: 8, Running: true}, {PID: 9}}}},
	})
	for _, want := range []string{"demo", "dead, process 7", "a - b", "1400", "shop/web", "refused: has a sidecar", "8, 9 (ended)",
		"a     --pin-dir /pins/a --admin /a.sock"} {
		if !strings.Contains(string(table.text()), want) {
			t.Errorf("%q is missing:\n%s", want, table.text())
		}
	}
}
