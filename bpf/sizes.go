// SPDX-License-Identifier: Apache-2.0

package bpf

// Sizes are how much there is room for. They are fixed when the maps are made.
type Sizes struct {
	// Services is the number of service ports: one per address, port and protocol.
	Services uint32
	// Endpoints is the number of endpoints, counted once for each service port that they are behind.
	Endpoints uint32
	// Workloads is the number of enrolled pods of this node.
	Workloads uint32
	// Affinities is the number of (workload, service) pairs that session affinity remembers; the least used goes.
	Affinities uint32
	// Peers is the number of (socket, service) pairs of unconnected UDP, but for the first service of a socket; the
	// least used goes.
	Peers uint32
}

// DefaultSizes has room for 10,000 services of two ports, 100,000 endpoints and 1,000 pods.
func DefaultSizes() Sizes {
	return Sizes{Services: 20_000, Endpoints: 100_000, Workloads: 1_000, Affinities: 8_192, Peers: 8_192}
}

// MaxEntries returns the sizes of the maps by name.
func (s Sizes) MaxEntries() map[string]uint32 {
	return map[string]uint32{
		// Each address has one entry more, for the ports that it does not have.
		"service_ids": 2 * s.Services,
		"services":    s.Services + 1, // index 0 is none
		"endpoints":   s.Endpoints + 1,
		// Segments are powers of two and a grown one is copied before the old one is given back.
		"slots":          4*s.Endpoints + 1,
		"workloads":      2 * s.Workloads, // by namespace and by interface
		"workload_names": s.Workloads,
		"affinities":     s.Affinities,
		"peers":          2 * s.Peers, // there and back
	}
}

// Flag returns the flag of the agent that sizes a map, for error messages; empty if none does.
func Flag(mapName string) string {
	switch mapName {
	case "service_ids", "services":
		return "--max-services"
	case "endpoints", "slots":
		return "--max-endpoints"
	case "workloads", "workload_names":
		return "--max-workloads"
	case "affinities":
		return "--max-affinities"
	case "peers":
		return "--max-peers"
	}
	return ""
}

// FlagValue returns what the flag of a map was, or is to be, for the map to have that many entries: MaxEntries backwards.
func FlagValue(mapName string, entries uint32) uint32 {
	switch mapName {
	case "service_ids", "workloads", "peers":
		return entries / 2
	case "services", "endpoints":
		return entries - 1
	case "slots":
		return (entries - 1) / 4
	}
	return entries
}
