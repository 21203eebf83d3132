// SPDX-License-Identifier: Apache-2.0

package plane

import (
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/evenkeel/evenkeel/bpf"
)

// countNames are the names of enum count, as status and metrics show them. They are stable.
var countNames = [...]string{
	bpf.MeshCountCOUNT_CONNECT:       "connect",
	bpf.MeshCountCOUNT_SEND:          "send",
	bpf.MeshCountCOUNT_PASSED:        "passed",
	bpf.MeshCountCOUNT_ESTABLISHED:   "established",
	bpf.MeshCountCOUNT_CLOSED:        "closed",
	bpf.MeshCountCOUNT_FAILED:        "failed",
	bpf.MeshCountCOUNT_ACCEPTED:      "accepted",
	bpf.MeshCountCOUNT_INBOUND:       "inbound",
	bpf.MeshCountCOUNT_MESSAGES:      "messages",
	bpf.MeshCountCOUNT_MOVED:         "moved",
	bpf.MeshCountCOUNT_DESTROYED:     "destroyed",
	bpf.MeshCountREFUSED_NO_ENDPOINT: "refused_no_endpoint",
	bpf.MeshCountREFUSED_NO_PORT:     "refused_no_port",
	bpf.MeshCountREFUSED_NO_MEMORY:   "refused_no_memory",
	bpf.MeshCountREFUSED_CHANGING:    "refused_changing",
	bpf.MeshCountREFUSED_SOURCE:      "refused_source",
	bpf.MeshCountCOUNT_RESET:         "reset",
	bpf.MeshCountCOUNT_HANDSHAKE_NS:  "handshake_ns",
}

// Counters reads the counters of a generation by name, summed over all CPUs. One of an older release may lack some.
func Counters(counters *ebpf.Map) (map[string]uint64, error) {
	all := make(map[string]uint64, len(countNames))
	for i, name := range countNames {
		if uint32(i) >= counters.MaxEntries() {
			continue
		}
		n, err := sum(counters, uint32(i))
		if err != nil {
			return nil, fmt.Errorf("read counter %s: %w", name, err)
		}
		all[name] = n
	}
	return all, nil
}

// Misses reads how often each hook found its slot empty. That is damage.
func Misses(misses *ebpf.Map) (map[string]uint64, error) {
	all := make(map[string]uint64)
	for i, h := range bpf.Hooks() {
		n, err := sum(misses, uint32(i))
		if err != nil {
			return nil, fmt.Errorf("read misses of hook %s: %w", h.Name, err)
		}
		all[h.Name] = n
	}
	return all, nil
}

func sum(m *ebpf.Map, index uint32) (total uint64, err error) {
	var perCPU []uint64
	if err := m.Lookup(index, &perCPU); err != nil {
		return 0, err
	}
	for _, n := range perCPU {
		total += n
	}
	return total, nil
}
