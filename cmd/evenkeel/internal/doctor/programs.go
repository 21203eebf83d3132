// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/evenkeel/evenkeel/bpf"
)

// patient is the machine that is examined, with the programs that it has taken so far.
type patient struct {
	Options
	maps    map[string]*ebpf.Map
	loaded  map[string]*ebpf.Program
	failure error // of making the maps
}

func (p *patient) close() {
	for _, m := range p.maps {
		m.Close()
	}
	for _, program := range p.loaded {
		program.Close()
	}
}

const clients = "connections of pods cannot be given an endpoint"

// programs are the checks of what the verifier takes: the very programs of this release, in groups of one kind.
func (p *patient) programs() []check {
	load := func(names ...string) func() (string, error) {
		return func() (string, error) {
			if err := p.load(names); err != nil {
				return "", err
			}
			if len(names) == 1 {
				return "1 program loads", nil
			}
			return fmt.Sprintf("%d programs load", len(names)), nil
		}
	}
	groups := map[string][]string{}
	for _, h := range bpf.Hooks() {
		kind := strings.TrimRight(h.Name, "46")
		groups[kind] = append(groups[kind], h.Entry, h.Program)
	}
	return []check{
		{"programs connect", true, clients, load(groups["connect"]...)},
		{"programs sendmsg", true, "unconnected UDP cannot reach services", load(groups["sendmsg"]...)},
		{"programs recvmsg", true, "replies over UDP would show the endpoint's address", load(groups["recvmsg"]...)},
		{"programs getpeername", true, "getpeername() would show the endpoint's address", load(groups["peername"]...)},
		{"programs sock_ops", true, "connections are not counted", load(groups["sock_ops"]...)},
		{"programs sk_lookup", true, "what reaches a pod is not seen", load(groups["sk_lookup"]...)},
		{"programs tcx", true, "sources of packets cannot be checked", load(groups["tcx"]...)},
		{"programs sk_msg", true, "the agent cannot load what it brings along; nothing uses it yet", load(groups["sk_msg"]...)},
		{"program publish (SYSCALL type, bpf_loop)", true, "the agent cannot change what is served",
			load(bpf.MeshProgPublish)},
		{"program dump_flows (iterator over socket storage)", true, "flows cannot be listed",
			load(bpf.MeshProgDumpFlows)},
		{"program destroy_udp (bpf_sock_destroy)", true, "UDP clients keep sending to endpoints that are gone",
			load(bpf.MeshProgDestroyUdp)},
	}
}

// load loads programs of this release. Maps are made once, as small as can be.
func (p *patient) load(names []string) error {
	spec, err := bpf.Spec()
	if err != nil {
		return err
	}
	if err := bpf.Configure(spec, 1); err != nil {
		return err
	}
	if p.maps == nil && p.failure == nil {
		p.failure = p.makeMaps(spec.Copy())
	}
	if p.failure != nil {
		return p.failure
	}
	maps.DeleteFunc(spec.Programs, func(name string, _ *ebpf.ProgramSpec) bool { return !slices.Contains(names, name) })
	shared := make(map[string]*ebpf.Map)
	for name := range spec.Maps {
		if m := p.maps[name]; m != nil {
			shared[name] = m
			small(spec.Maps[name])
		}
	}
	collection, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: shared})
	if err != nil {
		var refused *ebpf.VerifierError
		if errors.As(err, &refused) {
			return fmt.Errorf("%w: this kernel refuses it", err)
		}
		return err
	}
	defer collection.Close()
	if p.loaded == nil {
		p.loaded = make(map[string]*ebpf.Program)
	}
	for _, name := range names {
		p.loaded[name] = collection.DetachProgram(name)
	}
	return nil
}

func (p *patient) makeMaps(spec *ebpf.CollectionSpec) error {
	clear(spec.Programs)
	maps.DeleteFunc(spec.Maps, func(name string, _ *ebpf.MapSpec) bool { return strings.Contains(name, ".") })
	clear(spec.Variables)
	for _, m := range spec.Maps {
		small(m)
	}
	collection, err := ebpf.NewCollection(spec)
	if err != nil {
		return fmt.Errorf("make the maps: %w", err)
	}
	p.maps, collection.Maps = collection.Maps, nil
	return nil
}

// small gives a map as few elements as it can have. What programs count on (prog arrays, counters) stays.
func small(m *ebpf.MapSpec) {
	if bpf.Flag(m.Name) != "" {
		m.MaxEntries = 16
	}
}
