// SPDX-License-Identifier: Apache-2.0

// Package cases is the table of what Kubernetes objects mean to the engine: documents in testdata/*.yaml, and beside
// each file, as *.golden, what the engine must be told and what a person must be warned of. Tests of every source of
// such objects run it, so that a file and an API server cannot come to mean different things. It decides nothing and
// is not part of any binary.
package cases

import (
	"embed"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/evenkeel/evenkeel/engine"
	"github.com/evenkeel/evenkeel/engine/manifest"
)

//go:embed testdata
var testdata embed.FS

// Case is one file of documents and what is to come of them.
type Case struct {
	// Name is the file's, without ".yaml".
	Name string
	// Text is the file's; Documents are those in it.
	Text      string
	Documents []manifest.Document
	// Derived cases need a source that writes the slices of services with a selector itself (source.Options.Derive).
	Derived bool
	// Want is what Model.String is to return.
	Want string
}

// All returns the cases in the order of their names.
func All() ([]Case, error) {
	files, err := fs.Glob(testdata, "testdata/*.yaml")
	if err != nil {
		return nil, err
	}
	var all []Case
	for _, file := range files {
		name := strings.TrimSuffix(strings.TrimPrefix(file, "testdata/"), ".yaml")
		c := Case{Name: name, Derived: strings.HasPrefix(name, "derive")}
		text, err := testdata.ReadFile(file)
		if err != nil {
			return nil, err
		}
		c.Text = string(text)
		c.Documents, _, err = manifest.Decode(strings.NewReader(c.Text), name+".yaml")
		if err != nil {
			return nil, err
		}
		want, err := testdata.ReadFile("testdata/" + name + ".golden")
		if err != nil {
			return nil, err
		}
		c.Want = string(want)
		all = append(all, c)
	}
	return all, nil
}

// Model is what an engine has been told, all changes applied.
type Model struct {
	Services  map[string]*engine.Service
	Slices    map[string]*engine.Slice
	Nodes     map[string]*engine.Node
	Workloads map[string]*engine.Workload
	// Warnings are what the source had to say, "Service shop/web: text", sorted.
	Warnings []string
}

// Apply brings in a change the way an engine does.
func (m *Model) Apply(c engine.Change) {
	apply(&m.Services, c.Services)
	apply(&m.Slices, c.Slices)
	apply(&m.Nodes, c.Nodes)
	apply(&m.Workloads, c.Workloads)
}

func apply[T any](all *map[string]*T, changes map[string]*T) {
	if *all == nil {
		*all = map[string]*T{}
	}
	for name, v := range changes {
		if v == nil {
			delete(*all, name)
		} else {
			(*all)[name] = v
		}
	}
}

// String writes the model without origins, one line for each thing, sorted by name. Fields with their usual value are
// left out.
func (m *Model) String() string {
	var b strings.Builder
	for _, name := range sorted(m.Nodes) {
		n := m.Nodes[name]
		line(&b, "node", n.Name, word("zone", n.Zone))
	}
	for _, name := range sorted(m.Workloads) {
		writeWorkload(&b, m.Workloads[name])
	}
	for _, name := range sorted(m.Services) {
		writeService(&b, m.Services[name])
	}
	for _, name := range sorted(m.Slices) {
		writeSlice(&b, m.Slices[name])
	}
	for _, w := range m.Warnings {
		line(&b, "warning", w)
	}
	return b.String()
}

func writeWorkload(b *strings.Builder, w *engine.Workload) {
	var labels []string
	for _, name := range sorted(w.Labels) {
		labels = append(labels, name+"="+w.Labels[name])
	}
	line(b, "workload", w.Name, words("address", w.Addresses), word("node", w.Node), word("account", w.ServiceAccount),
		words("labels", labels), flag("host-network", w.HostNetwork), word("sidecar", w.Sidecar),
		word("other-mesh", w.OtherMesh))
}

func writeService(b *strings.Builder, s *engine.Service) {
	affinity := ""
	if s.Affinity != 0 {
		affinity = s.Affinity.String()
	}
	line(b, "service", s.Name, words("address", s.Addresses), word("affinity", affinity),
		flag("consistent-hash", s.ConsistentHash), flag("local-only", s.LocalOnly),
		[]string{"", "same-zone", "same-node"}[s.Distribution], word("external-name", s.ExternalName))
	for _, p := range s.Ports {
		line(b, "  port", fmt.Sprintf("%q %d/%s", p.Name, p.Port, p.Protocol))
	}
}

func writeSlice(b *strings.Builder, s *engine.Slice) {
	line(b, "slice", s.Name, "of "+s.Service)
	for _, p := range s.Ports {
		line(b, "  port", fmt.Sprintf("%q %d/%s", p.Name, p.Port, p.Protocol))
	}
	for _, e := range s.Endpoints {
		weight := ""
		if e.Weight != 1 {
			weight = fmt.Sprintf("weight %d", e.Weight)
		}
		var hints engine.Hints
		if e.Hints != nil {
			hints = *e.Hints
		}
		line(b, "  endpoint", e.Address.String(), word("workload", e.Workload), word("node", e.Node),
			word("zone", e.Zone), weight, flag("ready", e.Ready), flag("serving", e.Serving),
			flag("terminating", e.Terminating), words("for-nodes", hints.Nodes), words("for-zones", hints.Zones))
	}
}

func sorted[T any](m map[string]T) []string { return slices.Sorted(maps.Keys(m)) }

func line(b *strings.Builder, parts ...string) {
	parts = slices.DeleteFunc(parts, func(p string) bool { return p == "" })
	b.WriteString(strings.Join(parts, " ") + "\n")
}

func word(what, value string) string {
	if value == "" {
		return ""
	}
	return what + " " + value
}

func words[T any](what string, values []T) string {
	if len(values) == 0 {
		return ""
	}
	return what + " " + strings.Trim(fmt.Sprint(values), "[]")
}

func flag(what string, set bool) string {
	if set {
		return what
	}
	return ""
}
