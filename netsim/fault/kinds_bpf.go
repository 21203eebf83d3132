// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// bpfKinds are the faults of what an agent has in the kernel, and of the kernel that it meets.
func bpfKinds() []Kind {
	kind := func(name, target, summary string, zero func() Fault, build func(subject, values) (Fault, error),
		params ...Param) Kind {
		return Kind{Name: name, Group: "bpf", Target: target, Summary: summary, Params: params, zero: zero, build: build}
	}
	pin := Param{"pin", "random", "path below the node's pin directory; * stands for any name; random: drawn"}
	refuse := func(s subject, v values) (Fault, error) {
		errno, err := v.errno("errno")
		return &Refuse{Agent: s.agent(), Call: v.text("call"), Errno: errno}, err
	}
	refused := func() Fault { return new(Refuse) }
	return []Kind{
		kind("bpffs-unmounted", "lab", "unmount the BPF file system of all nodes", func() Fault { return new(Unmount) },
			func(s subject, _ values) (Fault, error) {
				u := &Unmount{}
				for _, n := range s.info.Nodes {
					s.node = n
					u.Agents, u.Dir = append(u.Agents, s.agent()), filepath.Dir(n.PinDir)
				}
				return u, nil
			}),
		kind("pin-deleted", "node", "remove a pin", func() Fault { return new(Unpin) },
			func(s subject, v values) (Fault, error) {
				path, err := v.pin(s, "pin", "")
				return &Unpin{Agent: s.agent(), Pin: path}, err
			}, pin),
		kind("pins-deleted", "node", "kill the agent and remove all of its pins", func() Fault { return new(UnpinAll) },
			func(s subject, _ values) (Fault, error) { return &UnpinAll{Agent: s.agent(), Dir: s.node.PinDir}, nil }),
		kind("pin-foreign", "node", "put something foreign in the place of a pin", func() Fault { return new(Exchange) },
			func(s subject, v values) (Fault, error) {
				path, err := v.pin(s, "pin", "")
				with, withErr := v.choice("with", string(ForeignMap), string(ForeignProgram), string(ForeignLink),
					string(ForeignDirectory))
				return &Exchange{Agent: s.agent(), Pin: path, With: Foreign(with)}, errors.Join(err, withErr)
			}, pin, Param{"with", "map", "map, program, link or directory"}),
		kind("map-full", "node", "fill a map", func() Fault { return new(FillMap) },
			func(s subject, v values) (Fault, error) {
				path, err := v.pin(s, "map", "")
				return &FillMap{Pin: path}, err
			}, Param{"map", "maps/workloads", "path below the node's pin directory; * stands for any name"}),
		kind("map-corrupted", "node", "write random bytes over values of a map", func() Fault { return new(CorruptMap) },
			func(s subject, v values) (Fault, error) {
				path, err := v.pin(s, "map", "")
				entries, entriesErr := v.number("entries")
				return &CorruptMap{Agent: s.agent(), Pin: path, Entries: entries, Seed: v.seed}, errors.Join(err, entriesErr)
			}, Param{"map", "gen/*/maps/endpoints", "path below the node's pin directory; * stands for any name"},
			Param{"entries", "3", "how many, those in use first"}),
		kind("link-detached", "node", "detach a program, as somebody else may", func() Fault { return new(Detach) },
			func(s subject, v values) (Fault, error) {
				path, err := v.pin(s, "pin", "links/")
				return &Detach{Agent: s.agent(), Pin: path}, err
			}, Param{"pin", "links/connect4", "path of the link below the node's pin directory; * and random as ever"}),
		kind("cgroup-recreated", "node", "remove the cgroup that programs are attached to and make it again",
			func() Fault { return new(Cgroup) },
			func(s subject, _ values) (Fault, error) { return &Cgroup{Agent: s.agent(), Path: s.node.Cgroup}, nil }),
		kind("other-program", "node", "attach another program to the same hook", func() Fault { return new(OtherProgram) },
			func(s subject, v values) (Fault, error) {
				order, err := v.choice("order", "before", "after")
				o := &OtherProgram{Hook: v.text("hook"), Cgroups: []string{s.node.Cgroup}}
				if order == "before" { // programs of the cgroups below run first
					o.Cgroups = nil
					for _, p := range s.info.Pods {
						if p.Node == s.node.Name {
							o.Cgroups = append(o.Cgroups, p.Cgroup)
						}
					}
				}
				return o, err
			}, Param{"hook", "connect4", "name of the hook, as of the pin of its link"},
			Param{"order", "after", "before or after the agent's"}),
		kind("verifier-refusal", "agent", "start it again where the verifier rejects its programs", refused, refuse,
			Param{"call", "bpf PROG_LOAD", "beginning of the calls that are refused"}, Param{"errno", "EACCES", "with what"}),
		kind("missing-feature", "agent", "start it again on a kernel that lacks something", refused, refuse,
			Param{"call", "bpf PROG_TEST_RUN", "beginning of the calls that are refused"},
			Param{"errno", "EINVAL", "with what: an unknown command is EINVAL, an unknown system call ENOSYS"}),
	}
}

// pin finds a pin of the subject's node: the only one, or the first of several, that fits; "random" draws among those
// below a prefix.
func (v values) pin(s subject, name, prefix string) (string, error) {
	pins, err := Pins(s.node.PinDir)
	if err != nil {
		return "", err
	}
	wanted := v.text(name)
	var fit []string
	for _, p := range pins {
		matched, err := filepath.Match(wanted, p)
		if err != nil {
			return "", fmt.Errorf("%s=%s: %w", name, wanted, err)
		}
		if matched || wanted == "random" && strings.HasPrefix(p, prefix) {
			fit = append(fit, p)
		}
	}
	if len(fit) == 0 {
		return "", fmt.Errorf("%s=%s: no such pin in %s", name, wanted, s.node.PinDir)
	}
	if wanted == "random" {
		return filepath.Join(s.node.PinDir, fit[v.random.IntN(len(fit))]), nil
	}
	return filepath.Join(s.node.PinDir, fit[0]), nil
}
