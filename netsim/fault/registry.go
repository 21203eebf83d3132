// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"

	"github.com/evenkeel/evenkeel/netsim"
)

// Kind is a kind of fault, by name.
type Kind struct {
	Name    string
	Group   string // process, control-plane, bpf, topology, wire
	Target  string // what it is done to: "agent", "pod", "node", "wire", "source", "lab"
	Summary string
	Params  []Param

	zero  func() Fault // to decode into
	build func(s subject, v values) (Fault, error)
}

// Param is a parameter of a kind of fault.
type Param struct {
	Name    string
	Default string // empty: it must be given
	Help    string
}

// Kinds returns all kinds of faults, sorted by group, then as they are in docs/CHAOS.md.
func Kinds() []Kind {
	return slices.Concat(processKinds(), sourceKinds(), bpfKinds(), topologyKinds(), wireKinds())
}

// ErrUnknown is returned for a fault, target or parameter that does not exist.
var ErrUnknown = errors.New("unknown")

// Lookup returns the kind of a name, or ErrUnknown.
func Lookup(name string) (Kind, error) {
	var all, like []string
	for _, k := range Kinds() {
		if k.Name == name {
			return k, nil
		}
		all = append(all, k.Name)
		if begin := name[:min(3, len(name))]; begin != "" && strings.Contains(k.Name, begin) {
			like = append(like, k.Name)
		}
	}
	if len(like) > 0 {
		return Kind{}, fmt.Errorf("%w fault %q: did you mean %s?", ErrUnknown, name, strings.Join(like, ", "))
	}
	return Kind{}, fmt.Errorf("%w fault %q: there are %s", ErrUnknown, name, strings.Join(all, ", "))
}

// kindOf returns the name under which a fault can be decoded.
func kindOf(f Fault) (string, error) {
	for _, k := range Kinds() {
		if reflect.TypeOf(k.zero()) == reflect.TypeOf(f) {
			return k.Name, nil
		}
	}
	return "", fmt.Errorf("%w kind of fault %T", ErrUnknown, f)
}

// Environment is where faults are injected.
type Environment struct {
	Lab    *netsim.Lab
	Binary string   // the evenkeel of the lab
	Self   []string // as in Options
}

// Build makes the fault that a spec describes, for Options.Inject. The same spec makes the same fault.
func (e Environment) Build(spec Spec) (Fault, error) {
	k, err := Lookup(spec.Fault)
	if err != nil {
		return nil, err
	}
	s, err := e.subject(k.Target, spec.Target)
	if err != nil {
		return nil, fmt.Errorf("fault %s: %w", k.Name, err)
	}
	v := values{given: map[string]string{}, random: rand.New(rand.NewPCG(spec.Seed, 0)), seed: spec.Seed}
	for _, p := range k.Params {
		v.given[p.Name] = p.Default
	}
	for name, value := range spec.With {
		if _, known := v.given[name]; !known {
			return nil, fmt.Errorf("fault %s: %w parameter %q: it has %s", k.Name, ErrUnknown, name, paramNames(k))
		}
		v.given[name] = value
	}
	f, err := k.build(s, v)
	if err != nil {
		return nil, fmt.Errorf("fault %s: %w", k.Name, err)
	}
	return f, nil
}

func paramNames(k Kind) string {
	if len(k.Params) == 0 {
		return "none"
	}
	names := make([]string, 0, len(k.Params))
	for _, p := range k.Params {
		names = append(names, p.Name)
	}
	return strings.Join(names, ", ")
}

// subject is what a fault is done to: the part of a lab that a target names.
type subject struct {
	Environment
	info netsim.Info
	node netsim.NodeInfo
	pod  netsim.PodInfo
	wire netsim.WireInfo
}

func (s subject) agent() *Agent { return NewAgent(s.Lab, s.node.Name, s.Binary, s.Self) }

// subject finds a target: "agent/NODE", "node/NODE", "pod/NAMESPACE/NAME" or "pod/NAME", "wire/NODE,NODE", "source", "lab".
func (e Environment) subject(kind, target string) (s subject, err error) {
	s = subject{Environment: e, info: e.Lab.Info()}
	is, name, _ := strings.Cut(target, "/")
	if is != kind {
		return s, fmt.Errorf("target %q is no %s: write %s", target, kind, targetForm[kind])
	}
	missing := fmt.Errorf("target %q: %w in lab %s", target, netsim.ErrNotFound, e.Lab.Name())
	switch kind {
	case "source", "lab":
		return s, nil
	case "agent", "node":
		return s, s.findNode(name, missing)
	case "pod":
		if !strings.Contains(name, "/") {
			name = "default/" + name
		}
		for _, p := range s.info.Pods {
			if p.Namespace+"/"+p.Name == name {
				s.pod = p
				return s, s.findNode(p.Node, missing)
			}
		}
	case "wire":
		ends := strings.Split(name, ",")
		slices.Sort(ends)
		for _, w := range s.info.Wires {
			if slices.Equal(ends, w.Between[:]) {
				s.wire = w
				// The first that is named: what is done one way is done to what that node sends.
				first, _, _ := strings.Cut(name, ",")
				return s, s.findNode(first, missing)
			}
		}
	}
	return s, missing
}

// Targets lists what a kind of fault can be done to in the lab, sorted.
func (e Environment) Targets(k Kind) []string {
	info := e.Lab.Info()
	var targets []string
	switch k.Target {
	case "agent", "node":
		for _, n := range info.Nodes {
			targets = append(targets, k.Target+"/"+n.Name)
		}
	case "pod":
		for _, p := range info.Pods {
			if !p.HostNetwork {
				targets = append(targets, "pod/"+p.Namespace+"/"+p.Name)
			}
		}
	case "wire":
		for _, w := range info.Wires {
			targets = append(targets, "wire/"+w.Between[0]+","+w.Between[1], "wire/"+w.Between[1]+","+w.Between[0])
		}
	default:
		targets = []string{k.Target}
	}
	slices.Sort(targets)
	return targets
}

// Draw draws a fault with its target and seed; all else is as the kind has it by default.
func (e Environment) Draw(random *rand.Rand, kinds []Kind) (Spec, error) {
	k := kinds[random.IntN(len(kinds))]
	targets := e.Targets(k)
	if len(targets) == 0 {
		return Spec{}, fmt.Errorf("fault %s: lab %s has no %s", k.Name, e.Lab.Name(), k.Target)
	}
	return Spec{Fault: k.Name, Target: targets[random.IntN(len(targets))], Seed: random.Uint64()>>12 | 1}, nil
}

// Conflict tells whether two faults get into each other's way when both are there at once: they are done to the same
// node, wire or source, or one is done to the whole lab. An agent that stands in its start keeps the lab from being
// changed, also to heal.
func (e Environment) Conflict(a, b Spec) bool {
	for _, pair := range [][2]Spec{{a, b}, {b, a}} {
		if pair[0].Fault == "stop-at" || pair[0].Fault == "wedge-at" {
			is, _, _ := strings.Cut(pair[1].Target, "/")
			if is != "source" && (is != "wire" || strings.HasPrefix(pair[1].Fault, "wire-")) {
				return true
			}
		}
	}
	if a.Target == "lab" || b.Target == "lab" {
		return true
	}
	return slices.ContainsFunc(e.touches(a), func(s string) bool { return slices.Contains(e.touches(b), s) })
}

func (e Environment) touches(s Spec) []string {
	is, name, _ := strings.Cut(s.Target, "/")
	switch is {
	case "agent", "node":
		touched := []string{"node/" + name}
		if s.Fault == "reboot" { // which takes its wires along
			for _, w := range e.Lab.Info().Wires {
				if slices.Contains(w.Between[:], name) {
					touched = append(touched, "wire/"+w.Between[0]+","+w.Between[1])
				}
			}
		}
		return touched
	case "pod":
		if p := e.Lab.Pod(name); p != nil {
			return []string{"node/" + p.Node}
		}
	case "wire":
		ends := strings.Split(name, ",")
		slices.Sort(ends)
		return []string{"wire/" + strings.Join(ends, ",")}
	}
	return []string{s.Target}
}

var targetForm = map[string]string{
	"agent": "agent/NODE", "node": "node/NODE", "pod": "pod/NAMESPACE/NAME", "wire": "wire/NODE,NODE", "source": "source",
	"lab": "lab",
}

func (s *subject) findNode(name string, missing error) error {
	for _, n := range s.info.Nodes {
		if n.Name == name {
			s.node = n
			return nil
		}
	}
	return missing
}

// other is the far node of the subject's wire.
func (s subject) other() netsim.NodeInfo {
	for _, n := range s.info.Nodes {
		if n.Name != s.node.Name && slices.Contains(s.wire.Between[:], n.Name) {
			return n
		}
	}
	return netsim.NodeInfo{}
}
