// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"maps"
	"slices"
)

// Sizes are how much there is room for. They are fixed when the maps are made.
type Sizes struct {
	// Services is the number of service ports: one per address, port and protocol.
	Services uint32
	// Endpoints is the number of endpoints, counted once for each service port that they are behind.
	Endpoints uint32
	// Workloads is the number of enrolled pods of this node, [MostWorkloads] at most.
	Workloads uint32
	// Affinities is the number of (workload, service) pairs that session affinity remembers; the least used goes.
	Affinities uint32
	// Peers is the number of (socket, service) pairs of unconnected UDP, but for the first service of a socket; the
	// least used goes.
	Peers uint32
}

// MostWorkloads is how many pods of a node there can be: more than three times what the largest distributions of
// Kubernetes have been tested with. Entry programs, which never change, read the maps of workloads, so those are made for
// all of them, which takes 16 bytes each; Workloads is a limit that enrolment keeps.
const MostWorkloads = 8_192

// Room returns how many entries a frozen map is made for, whatever the sizes are.
func Room() map[string]uint32 {
	all := (Sizes{Workloads: MostWorkloads}).MaxEntries()
	maps.DeleteFunc(all, func(name string, _ uint32) bool { return !slices.Contains(Frozen(), name) })
	return all
}

// DefaultSizes has room for 10,000 services of two ports, 100,000 endpoints and 1,000 pods.
func DefaultSizes() Sizes {
	return Sizes{Services: 20_000, Endpoints: 100_000, Workloads: 1_000, Affinities: 8_192, Peers: 8_192}
}

// sizing is how a map follows from the flag of the agent that sizes it: it has times * size + more entries.
type sizing struct {
	flag        string
	size        func(*Sizes) *uint32
	times, more uint32
}

func services(s *Sizes) *uint32   { return &s.Services }
func endpoints(s *Sizes) *uint32  { return &s.Endpoints }
func workloads(s *Sizes) *uint32  { return &s.Workloads }
func affinities(s *Sizes) *uint32 { return &s.Affinities }
func peers(s *Sizes) *uint32      { return &s.Peers }

var sizings = map[string]sizing{
	"service_ids": {"--max-services", services, 2, 0}, // an address has one more, for the ports that it does not have
	"services":    {"--max-services", services, 1, 1}, // index 0 is none
	"endpoints":   {"--max-endpoints", endpoints, 1, 1},
	// Segments are powers of two and a grown one is copied before the old one is given back.
	"slots":          {"--max-endpoints", endpoints, 4, 1},
	"workloads":      {"--max-workloads", workloads, 2, 0}, // by namespace and by interface
	"workload_names": {"--max-workloads", workloads, 1, 0},
	"affinities":     {"--max-affinities", affinities, 1, 0},
	"peers":          {"--max-peers", peers, 2, 0}, // there and back
}

// MaxEntries returns the sizes of the maps by name.
func (s Sizes) MaxEntries() map[string]uint32 {
	all := make(map[string]uint32, len(sizings))
	for name, z := range sizings {
		all[name] = z.times**z.size(&s) + z.more
	}
	return all
}

// Flag returns the flag of the agent that sizes a map, for error messages; empty if none does.
func Flag(mapName string) string { return sizings[mapName].flag }

// FlagValue returns what the flag of a map was, or is to be, for the map to have that many entries: MaxEntries
// backwards. Of a map that no flag sizes it returns 0.
func FlagValue(mapName string, entries uint32) uint32 {
	z, ok := sizings[mapName]
	if !ok || entries < z.more {
		return 0
	}
	return (entries - z.more) / z.times
}
