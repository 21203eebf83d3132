// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/evenkeel/evenkeel/engine/enrol"
)

// answers runs a batch whose pods are done by do, and returns its answers in order of pod.
func answers(t testing.TB, text string, facts podFacts, do act) ([]answer, error) {
	t.Helper()
	var out bytes.Buffer
	b := &batch{facts: facts, do: do, out: &out}
	err := b.run(t.Context(), strings.NewReader(text))
	var all []answer
	for line := range bytes.Lines(out.Bytes()) {
		var a answer
		if err := json.Unmarshal(line, &a); err != nil {
			t.Fatalf("answer %q: %v", line, err)
		}
		all = append(all, a)
	}
	slices.SortFunc(all, func(a, b answer) int { return strings.Compare(a.Pod, b.Pod) })
	return all, err
}

func TestBatchAnswersEveryLine(t *testing.T) {
	do := func(_ context.Context, _ enrol.Options, pod enrol.Pod) (answer, error) {
		a := answer{Pod: pod.Name}
		switch pod.Name {
		case "a/refused":
			return a, enrol.Decide(pod.Name, pod.Facts)
		case "a/wrong":
			return a, errors.New("it went wrong")
		}
		a.Enrolled = true
		return a, nil
	}
	facts := podFacts{"a/good": {}, "a/refused": {HostNetwork: true}, "a/wrong": {}}
	all, err := answers(t, `{"netns": "/x", "pod": "a/good"}

{"netns": "/x", "pod": "a/refused"}
{"netns": "/x", "pod": "a/wrong"}
{"netns": "/x", "pod": "a/unknown"}
{"netns": "/x"
`, facts, do)
	if err == nil || !strings.Contains(err.Error(), "3 of 6") {
		t.Errorf("error %v", err)
	}
	type want struct{ pod, code, reason string }
	wants := []want{
		{"", "error", "line 6"}, {"a/good", "", ""}, {"a/refused", "host-network", "host network"},
		{"a/unknown", "error", "no such pod"}, {"a/wrong", "error", "line 4: it went wrong"},
	}
	if len(all) != len(wants) {
		t.Fatalf("answers %+v", all)
	}
	for i, w := range wants {
		a := all[i]
		if a.Pod != w.pod || a.Code != w.code || !strings.Contains(a.Reason, w.reason) || a.Enrolled != (w.code == "") {
			t.Errorf("answer %+v, want %+v", a, w)
		}
	}
}

func TestBatchOfRefusedPodsSucceeds(t *testing.T) {
	do := func(_ context.Context, _ enrol.Options, pod enrol.Pod) (answer, error) {
		return answer{Pod: pod.Name}, enrol.Decide(pod.Name, enrol.Facts{Sidecar: "istio-proxy"})
	}
	if all, err := answers(t, `{"netns":"/x","pod":"a/b"}`, nil, do); err != nil || len(all) != 1 || all[0].Code != "sidecar" {
		t.Errorf("%+v, %v", all, err)
	}
}

func TestBatchRefusesALineWithoutEnd(t *testing.T) {
	do := func(context.Context, enrol.Options, enrol.Pod) (answer, error) { return answer{}, nil }
	_, err := answers(t, `{"netns":"/x","pod":"a/b"}`+"\n"+strings.Repeat("x", 1<<20), nil, do)
	if err == nil || !strings.Contains(err.Error(), "line 2") || !strings.Contains(err.Error(), "longer than 65536 bytes") {
		t.Errorf("error %v", err)
	}
}

// What is wrong with a line is said in words of JSON, not of this program's types.
func TestBatchSaysWhatIsWrong(t *testing.T) {
	do := func(context.Context, enrol.Options, enrol.Pod) (answer, error) { return answer{}, nil }
	for line, want := range map[string]string{
		`{"netns":"/x","pod":1}`:            `"pod" is to be a string, not a number`,
		`{"netns":["/x"],"pod":"a/b"}`:      `"netns" is to be a string, not an array`,
		`{"netns":true,"pod":"a/b"}`:        `"netns" is to be a string, not true or false`,
		`[1]`:                               `this is an array`,
		`12`:                                `this is a number`,
		`{"pods":"a/b"}`:                    `unknown field "pods"`,
		`{"pod":"a/b"`:                      `the object does not end on its line`,
		`pod=a/b`:                           `invalid character 'p'`,
		`{"netns":"/x"}`:                    `"pod" is missing`,
		`{"pod":"a/b"} {"pod":"a/c"}`:       `one object a line`,
		`{"netns":"/x","pod":{"name":"b"}}`: `"pod" is to be a string, not an object`,
	} {
		all, err := answers(t, line+"\n", nil, do)
		if err == nil || len(all) != 1 || !strings.Contains(all[0].Reason, want) {
			t.Errorf("%s: %+v, want %s", line, all, want)
			continue
		}
		for _, internal := range []string{"json:", "Go ", "request"} {
			if strings.Contains(all[0].Reason, internal) {
				t.Errorf("%s: %q has %q", line, all[0].Reason, internal)
			}
		}
	}
}

// FuzzBatch: whatever comes in, every line that is not empty has one answer, and it is one line of JSON.
func FuzzBatch(f *testing.F) {
	for _, seed := range []string{
		`{"netns":"/x","pod":"a/b"}`, "{}", "\n\n", `{"pod":"a/b"}{"pod":"c/d"}`, `{"pod":1}`, "[1]", "\"\xff\"", `{"pods":""}`,
	} {
		f.Add(seed)
	}
	do := func(_ context.Context, _ enrol.Options, pod enrol.Pod) (answer, error) {
		return answer{Pod: pod.Name, Enrolled: true}, nil
	}
	f.Fuzz(func(t *testing.T, text string) {
		lines := 0
		for line := range strings.Lines(text) {
			if len(line) > maxBatchLine {
				t.Skip("too long")
			}
			if len(bytes.TrimSpace([]byte(line))) > 0 {
				lines++
			}
		}
		all, err := answers(t, text, nil, do)
		failed := slices.ContainsFunc(all, func(a answer) bool { return !a.Enrolled })
		if len(all) != lines || failed != (err != nil) {
			t.Errorf("%d lines, %d answers, error %v", lines, len(all), err)
		}
	})
}

func TestReadFacts(t *testing.T) {
	dir := t.TempDir()
	text := `
{apiVersion: v1, kind: Namespace, metadata: {name: mesh, labels: {istio.io/dataplane-mode: ambient}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: plain}, spec: {containers: [{name: main}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: host}, spec: {hostNetwork: true, containers: [{name: main}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: other, namespace: mesh}, spec: {containers: [{name: linkerd-proxy}]}}
`
	if err := os.WriteFile(filepath.Join(dir, "pods.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	facts, err := readFacts(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := podFacts{
		"default/plain": {}, "default/host": {HostNetwork: true},
		"mesh/other": {Sidecar: "linkerd-proxy", OtherMesh: "istio ambient"},
	}
	if len(facts) != len(want) {
		t.Errorf("facts %+v", facts)
	}
	for name, w := range want {
		if facts[name] != w {
			t.Errorf("%s: %+v, want %+v", name, facts[name], w)
		}
	}
	if _, err := facts.of(enrol.Pod{Name: "default/none"}); err == nil {
		t.Error("a pod that the manifests do not have has facts")
	}
}

// FuzzSplitTarget: nothing of what was written is lost, and nothing is made up.
func FuzzSplitTarget(f *testing.F) {
	for _, seed := range []string{"web:80", "a/b:53/udp", "[fd00::1]:80", "10.0.0.1:80/tcp", "", ":", "[", "]:1", "fd00::1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, target string) {
		service, port, protocol := splitTarget(target)
		for _, part := range []string{service, port, protocol} {
			if !strings.Contains(target, part) {
				t.Errorf("%q of %q", part, target)
			}
		}
		if strings.Contains(port, ":") || strings.Contains(port, "/") {
			t.Errorf("port %q of %q", port, target)
		}
	})
}
