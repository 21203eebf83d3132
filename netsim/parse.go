// SPDX-License-Identifier: Apache-2.0

package netsim

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strconv"
	"strings"

	yaml "go.yaml.in/yaml/v3"

	"github.com/evenkeel/evenkeel/engine/manifest"
)

// maxTopology is the size in bytes of a Topology document.
const maxTopology = 4 << 20

// document is the Topology as it is written.
type document struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name string `json:"name"`
	} `json:"metadata"`
	Spec struct {
		Nodes []NodeSpec `json:"nodes"`
		Wires []WireSpec `json:"wires"`
		Pods  []PodSpec  `json:"pods"`
		Agent AgentSpec  `json:"agent"`

		Dataplane Dataplane `json:"dataplane"`
	} `json:"spec"`
}

// ParseFile reads a topology file; see Parse.
func ParseFile(path string) (*Topology, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read topology: %w", err)
	}
	defer file.Close()
	return Parse(file, path)
}

// Parse reads one Topology document and the Kubernetes documents around it, and checks everything that can be checked
// before a lab is made. Errors are *manifest.Error or several of them joined: each names file, line, field and reason.
// file is only for these messages.
func Parse(r io.Reader, file string) (*Topology, error) {
	text, err := io.ReadAll(io.LimitReader(r, manifest.MaxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read topology: %w", err) // which names the file
	}
	whole := strings.TrimPrefix(string(text), "\ufeff")
	documents, skipped, err := manifest.Decode(strings.NewReader(whole), file)
	if err != nil {
		return nil, err
	}
	line, skipped, err := findTopology(skipped, file)
	if err != nil {
		return nil, err
	}
	own, shift, rest := cutDocument(whole, line)
	t, err := parseDocument(own, shift, file)
	if err != nil {
		return nil, err
	}
	t.Documents, t.Skipped = rest, skipped
	if err := t.validate(); err != nil {
		return nil, err
	}
	if err := t.distinct(documents); err != nil {
		return nil, err
	}
	return t, nil
}

// AddManifests adds the Kubernetes documents of a file, or of the files of a directory, to those of the topology file.
func (t *Topology) AddManifests(path string) error {
	documents, skipped, err := manifest.ReadPath(path)
	if err != nil {
		return err
	}
	files, err := manifest.Files(path)
	if err != nil {
		return err
	}
	own, _, err := manifest.Decode(strings.NewReader(t.Documents), t.File)
	if err != nil {
		return err
	}
	if err := t.distinct(append(own, documents...)); err != nil {
		return err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("read manifest: %w", err)
		}
		t.Documents += "\n---\n" + strings.TrimPrefix(string(text), "\ufeff")
	}
	t.Skipped = append(t.Skipped, skipped...)
	return nil
}

// distinct refuses documents of pods and nodes that the lab writes documents of.
func (t *Topology) distinct(documents []manifest.Document) error {
	keys := manifest.Keys{}
	for i, n := range t.Nodes {
		keys[manifest.Key{Kind: manifest.KindNode, Name: n.Name}] = t.place("spec.nodes", i)
	}
	for i, p := range t.Pods {
		for _, pod := range p.expand() {
			keys[manifest.Key{Kind: manifest.KindPod, Namespace: pod.Namespace, Name: pod.Name}] = t.place("spec.pods", i)
		}
	}
	for _, d := range documents {
		if err := keys.Add(d.Key(), manifest.Place{File: d.File, Line: d.Line}); err != nil {
			return err
		}
	}
	return nil
}

func (t *Topology) place(list string, i int) manifest.Place {
	return manifest.Place{File: t.File, Line: t.lines[fmt.Sprintf("%s[%d]", list, i)]}
}

// findTopology returns the line of the one Topology, and the documents of kinds that mean nothing here: those of
// Kubernetes are skipped, as agents do; one that is meant for a lab is a mistake.
func findTopology(unread []manifest.Skipped, file string) (line int, skipped []manifest.Skipped, err error) {
	group, _, _ := strings.Cut(APIVersion, "/")
	for _, s := range unread {
		gvk := s.GroupVersionKind
		switch {
		case gvk.Kind != Kind && gvk.Group != group:
			skipped = append(skipped, s)
			continue
		case gvk.Kind != Kind:
			return 0, nil, &manifest.Error{File: file, Line: s.Line, Object: strings.TrimSpace(gvk.Kind + " " + s.Name),
				Reason: fmt.Sprintf("%s has no such kind: write kind: %s", group, Kind)}
		case gvk.GroupVersion().String() != APIVersion:
			return 0, nil, &manifest.Error{File: file, Line: s.Line, Object: Kind, Field: "apiVersion", Reason: fmt.Sprintf(
				"%q is not known here: write %s", gvk.GroupVersion(), APIVersion)}
		case line != 0:
			return 0, nil, &manifest.Error{File: file, Line: s.Line, Object: Kind, Reason: fmt.Sprintf(
				"is the second of this file, the first is in line %d: remove one", line)}
		}
		line = s.Line
	}
	if line == 0 {
		return 0, nil, &manifest.Error{File: file, Reason: fmt.Sprintf(
			"has no Topology: it needs a document with apiVersion: %s and kind: %s", APIVersion, Kind)}
	}
	return line, skipped, nil
}

// cutDocument takes the document that has the given line (from 1) out of a stream. It returns its text, the number of
// lines before it, and the stream with its lines left empty.
func cutDocument(text string, line int) (own string, before int, rest string) {
	lines := strings.SplitAfter(text, "\n")
	start, end := line-1, line
	for start > 0 && !marks(lines[start], "---") && !marks(lines[start-1], "...") {
		start--
	}
	for end < len(lines) && !marks(lines[end], "---") && !marks(lines[end-1], "...") {
		end++
	}
	own = strings.Join(lines[start:end], "")
	blank := strings.Repeat("\n", strings.Count(own, "\n"))
	return own, start, strings.Join(lines[:start], "") + blank + strings.Join(lines[end:], "")
}

func marks(line, marker string) bool {
	after, is := strings.CutPrefix(line, marker)
	return is && (after == "" || strings.ContainsRune(" \t\r\n", rune(after[0])))
}

func parseDocument(text string, shift int, file string) (t *Topology, err error) {
	// A parser of a language as large as YAML has had panics before.
	defer func() {
		if p := recover(); p != nil {
			t, err = nil, &manifest.Error{File: file, Line: shift + 1, Object: Kind,
				Reason: fmt.Sprint("YAML parser gave up: ", p)}
		}
	}()
	if len(text) > maxTopology {
		return nil, &manifest.Error{File: file, Line: shift + 1, Object: Kind,
			Reason: fmt.Sprintf("is larger than %d MiB", maxTopology>>20)}
	}
	var root yaml.Node
	if err := yaml.Unmarshal([]byte(text), &root); err != nil {
		return nil, &manifest.Error{File: file, Line: syntaxLine(err, shift), Object: Kind, Reason: err.Error()}
	}
	if len(root.Content) == 0 {
		return nil, &manifest.Error{File: file, Line: shift + 1, Object: Kind,
			Reason: "is a list's item: give it a document of its own"}
	}
	var d document
	f := filler{lines: map[string]int{}, shift: shift, left: maxValues}
	if err := f.fill(root.Content[0], reflect.ValueOf(&d).Elem(), ""); err != nil {
		err.File, err.Object = file, strings.TrimSpace(Kind+" "+d.Metadata.Name)
		return nil, err
	}
	if d.Kind != Kind {
		return nil, &manifest.Error{File: file, Line: shift + 1, Object: Kind,
			Reason: "is a list's item: give it a document of its own"}
	}
	t = &Topology{Name: d.Metadata.Name, Nodes: d.Spec.Nodes, Wires: d.Spec.Wires, Pods: d.Spec.Pods, Agent: d.Spec.Agent,
		Dataplane: cmp.Or(d.Spec.Dataplane, Evenkeel), File: file, lines: f.lines}
	for i := range t.Pods {
		if t.Pods[i].Namespace == "" {
			t.Pods[i].Namespace = "default"
		}
	}
	return t, nil
}

// syntaxLine finds the line in a message of the YAML parser ("yaml: line 3: …"), which has no field for it.
func syntaxLine(err error, shift int) int {
	_, after, _ := strings.Cut(err.Error(), "line ")
	number, _, _ := strings.Cut(after, ":")
	line, convErr := strconv.Atoi(number)
	if errors.Is(convErr, strconv.ErrSyntax) {
		return shift + 1
	}
	return line + shift
}
