// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"maps"
	"strings"

	"github.com/cilium/ebpf"
)

// Target is what a hook is attached to.
type Target uint8

// The targets.
const (
	// Cgroup is the node's cgroup: every process below it.
	Cgroup Target = iota
	// Namespace is the network namespace of a workload.
	Namespace
	// Interface is the veth of a workload, on the node's side.
	Interface
	// Sockets is the map of accelerated sockets.
	Sockets
)

// Hook is a place in the kernel where an entry program is attached once and jumps into the generation that serves.
type Hook struct {
	// Name is as the pins have it: calls/NAME, links/NAME; the prog array is the map calls_NAME.
	Name string
	// Entry is the program that is attached, Program the main one of a generation.
	Entry, Program string
	Attach         ebpf.AttachType
	Target         Target
}

// Hooks returns every hook, indexed by the kernel's enum hook.
func Hooks() []Hook {
	hooks := make([]Hook, MeshHookHOOKS)
	add := func(i MeshHook, name string, attach ebpf.AttachType, target Target) {
		hooks[i] = Hook{Name: name, Entry: "enter_" + name, Program: "mesh_" + name, Attach: attach, Target: target}
	}
	add(MeshHookHOOK_CONNECT4, "connect4", ebpf.AttachCGroupInet4Connect, Cgroup)
	add(MeshHookHOOK_CONNECT6, "connect6", ebpf.AttachCGroupInet6Connect, Cgroup)
	add(MeshHookHOOK_SENDMSG4, "sendmsg4", ebpf.AttachCGroupUDP4Sendmsg, Cgroup)
	add(MeshHookHOOK_SENDMSG6, "sendmsg6", ebpf.AttachCGroupUDP6Sendmsg, Cgroup)
	add(MeshHookHOOK_RECVMSG4, "recvmsg4", ebpf.AttachCGroupUDP4Recvmsg, Cgroup)
	add(MeshHookHOOK_RECVMSG6, "recvmsg6", ebpf.AttachCGroupUDP6Recvmsg, Cgroup)
	add(MeshHookHOOK_GETPEERNAME4, "peername4", ebpf.AttachCgroupInet4GetPeername, Cgroup)
	add(MeshHookHOOK_GETPEERNAME6, "peername6", ebpf.AttachCgroupInet6GetPeername, Cgroup)
	add(MeshHookHOOK_SOCK_OPS, "sock_ops", ebpf.AttachCGroupSockOps, Cgroup)
	add(MeshHookHOOK_SK_LOOKUP, "sk_lookup", ebpf.AttachSkLookup, Namespace)
	add(MeshHookHOOK_TCX, "tcx", ebpf.AttachTCXIngress, Interface)
	add(MeshHookHOOK_SK_MSG, "sk_msg", ebpf.AttachSkMsgVerdict, Sockets)
	return hooks
}

// Frozen returns the names of the maps whose layout never changes: entry programs of any release and all generations
// share them. The prog arrays calls_* are not among them.
func Frozen() []string {
	return []string{"super", "workloads", "workload_names", "sockets", "misses", "accelerated"}
}

// Private returns the names of the maps that each generation has of its own.
func Private() []string { return []string{"counters"} }

// Standalone returns the names of the programs that are run on demand and attached nowhere.
func Standalone() []string { return []string{"publish", "dump_flows", "destroy_udp"} }

// Spec returns the object as it was compiled, without what only migrations need: data, nothing is loaded. Each call
// returns a fresh copy.
func Spec() (*ebpf.CollectionSpec, error) {
	spec, err := LoadMesh()
	if err != nil {
		return nil, fmt.Errorf("read embedded object: %w", err)
	}
	maps.DeleteFunc(spec.Programs, func(_ string, p *ebpf.ProgramSpec) bool { return migrates(p) })
	maps.DeleteFunc(spec.Maps, func(name string, _ *ebpf.MapSpec) bool { return auxiliary(name) })
	return spec, nil
}

// auxiliary reports whether a map is there for migrations only, by what upgrade/migrate/state.h calls it.
func auxiliary(name string) bool { return strings.Contains(name, "__") || name == "bridge" }

// migrates reports whether a program is there for migrations only: functions that are linked into others, and what moves
// entries.
func migrates(p *ebpf.ProgramSpec) bool {
	if p.Type == ebpf.UnspecifiedProgram || strings.HasSuffix(p.Name, "_check") {
		return true
	}
	return p.AttachTo == "bpf_map_elem"
}

// Number is the constant that holds the number of the generation.
const Number = "config.generation"

// Configure sets the constants of a generation in spec.
func Configure(spec *ebpf.CollectionSpec, generation uint16) error {
	c := MeshConfiguration{Generation: generation, Controls: controls}
	if err := spec.Variables["config"].Set(c); err != nil {
		return fmt.Errorf("set config of generation %d: %w", generation, err)
	}
	return nil
}

// Object returns the object as it was compiled, an ELF file; the caller must not change it.
func Object() []byte { return _MeshBytes }
