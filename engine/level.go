// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"slices"

	"github.com/evenkeel/evenkeel/bpf"
)

const levels = int(bpf.MeshServiceLevelLEVELS)

// The levels of a service, best first; see enum service_level of the kernel side.
const (
	levelNode    = int8(bpf.MeshServiceLevelLEVEL_NODE)
	levelZone    = int8(bpf.MeshServiceLevelLEVEL_ZONE)
	levelReady   = int8(bpf.MeshServiceLevelLEVEL_READY)
	levelServing = int8(bpf.MeshServiceLevelLEVEL_SERVING)
)

// stateOn is the state of an endpoint in use on a level: its incarnation, or the complement of that while it drains.
func stateOn(level int8, incarnation uint32) uint32 {
	if level == levelServing {
		return ^incarnation
	}
	return incarnation
}

// rank decides the level of each endpoint for the clients of a node, which is in zone ("" if unknown). Each has
// one level at most: clients use the first that has any, so what is in a better one need not be repeated in a worse.
func rank(list []want, s *Service, node, zone string) {
	byNode, byZone := hinted(list, s.Distribution)
	for i := range list {
		e := list[i].of
		list[i].level = nowhere
		switch {
		case list[i].weight == 0 || s.LocalOnly && !e.isOn(node):
		case !e.Ready:
			if e.Serving && e.Terminating {
				list[i].level = levelServing
			}
		case s.LocalOnly, byNode && slices.Contains(e.Hints.Nodes, node):
			list[i].level = levelNode
		case byZone && zone != "" && slices.Contains(e.Hints.Zones, zone):
			list[i].level = levelZone
		default:
			list[i].level = levelReady
		}
	}
}

// hinted says which hints count. As in kube-proxy (1.34), those of a kind do only if every ready endpoint has some: a
// set that is hinted in part is one that its controller has not finished.
func hinted(list []want, d Distribution) (byNode, byZone bool) {
	byNode, byZone = d == SameNode, d != Anywhere
	for i := range list {
		if e := list[i].of; e.Ready {
			byNode = byNode && e.Hints != nil && len(e.Hints.Nodes) > 0
			byZone = byZone && e.Hints != nil && len(e.Hints.Zones) > 0
		}
	}
	return byNode, byZone
}

// usable is more for an endpoint that clients are rather given.
func (e *Endpoint) usable() int {
	switch {
	case e.Ready:
		return 2
	case e.Serving && e.Terminating:
		return 1
	}
	return 0
}

// isOn reports whether e runs on a node.
func (e *Endpoint) isOn(node string) bool { return e.Node != "" && e.Node == node }
