// SPDX-License-Identifier: Apache-2.0

// Package plane says to package upgrade what the data plane of package bpf is, and hands its pinned maps to the engine,
// which knows nothing of pins. The commands call it; it holds no state.
package plane

import (
	"bytes"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/evenkeel/evenkeel/bpf"
	"github.com/evenkeel/evenkeel/upgrade"
)

// Label is what people call the release of this binary; main sets it.
var Label string

// Of returns the data plane of this release, with maps of these sizes by name. Hooks that the kernel does not have are
// left out; sk_msg is the only one that may be missing.
func Of(sizes map[string]uint32) upgrade.DataPlane {
	p := upgrade.DataPlane{
		Label: Label, Object: bpf.Object(), Private: bpf.Private(), Programs: bpf.Standalone(), Sizes: sizes, Room: bpf.Room(),
		Configure: func(spec *ebpf.CollectionSpec) error { return bpf.Configure(spec, 0) }, Number: bpf.Number, Stamps: bpf.MeshMapSockets, Trial: Trial,
		// upgrade makes super itself.
		Frozen: slices.DeleteFunc(bpf.Frozen(), func(name string) bool { return name == bpf.MeshMapSuper }),
	}
	for _, h := range bpf.Hooks() {
		hook := upgrade.Hook{Name: h.Name, Entry: h.Entry, Program: h.Program, Attach: h.Attach, At: where(h.Target)}
		if h.Target == bpf.Sockets {
			if SockhashLink() != nil {
				continue
			}
			hook.Map = bpf.MeshMapAccelerated
		}
		p.Hooks = append(p.Hooks, hook)
	}
	return p
}

// OfObject returns the data plane of another object, whose maps and programs play the parts that they play in this
// release's. Hooks, programs and maps that it does not have are left out.
func OfObject(object []byte, sizes map[string]uint32) (upgrade.DataPlane, error) {
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
	if err != nil {
		return upgrade.DataPlane{}, fmt.Errorf("read object: %w", err)
	}
	p := Of(maps.Clone(sizes))
	p.Object = object
	noMap := func(name string) bool { return spec.Maps[name] == nil }
	p.Frozen = slices.DeleteFunc(slices.Clone(p.Frozen), noMap)
	p.Private = slices.DeleteFunc(slices.Clone(p.Private), noMap)
	p.Programs = slices.DeleteFunc(slices.Clone(p.Programs), func(name string) bool { return spec.Programs[name] == nil })
	p.Hooks = slices.DeleteFunc(slices.Clone(p.Hooks), func(h upgrade.Hook) bool { return spec.Programs[h.Entry] == nil })
	maps.DeleteFunc(p.Sizes, func(name string, _ uint32) bool { return spec.Maps[name] == nil })
	maps.DeleteFunc(p.Room, func(name string, _ uint32) bool { return spec.Maps[name] == nil })
	return p, nil
}

func where(t bpf.Target) upgrade.Where {
	switch t {
	case bpf.Namespace:
		return upgrade.Netns
	case bpf.Interface:
		return upgrade.Tcx
	case bpf.Sockets:
		return upgrade.Sockhash
	}
	return upgrade.Cgroup
}

// SockhashLink attaches a program to a map of sockets by a link, which Linux 6.10 was the first to offer, and returns
// why it could not.
func SockhashLink() error {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.SockHash, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		return fmt.Errorf("create a map of sockets: %w", err)
	}
	defer m.Close()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SkMsg, AttachType: ebpf.AttachSkMsgVerdict, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()},
	})
	if err != nil {
		return fmt.Errorf("load an sk_msg program: %w", err)
	}
	defer p.Close()
	l, err := link.AttachRawLink(link.RawLinkOptions{Target: m.FD(), Program: p, Attach: ebpf.AttachSkMsgVerdict})
	if err != nil {
		return fmt.Errorf("attach an sk_msg program to a map of sockets: %w", err)
	}
	return l.Close()
}

// Maps are the maps of a generation as the engine takes them, frozen ones included. They stay the owner's.
func Maps(frozen map[string]*ebpf.Map, g *upgrade.Generation) (bpf.MeshMaps, error) {
	var maps bpf.MeshMaps
	v := reflect.ValueOf(&maps).Elem()
	for i := range v.NumField() {
		name := v.Type().Field(i).Tag.Get("ebpf")
		m := g.Maps[name]
		if m == nil {
			m = frozen[name]
		}
		if m != nil {
			v.Field(i).Set(reflect.ValueOf(m))
		}
	}
	for name, m := range map[string]*ebpf.Map{
		"service_ids": maps.ServiceIds, "services": maps.Services, "slots": maps.Slots, "endpoints": maps.Endpoints,
		"affinities": maps.Affinities, "peers": maps.Peers, "workloads": maps.Workloads,
		"workload_names": maps.WorkloadNames,
	} {
		if m == nil {
			return bpf.MeshMaps{}, fmt.Errorf("generation %d has no map %s: start the agent, which restores what it can",
				g.Number, name)
		}
	}
	return maps, nil
}
