// SPDX-License-Identifier: Apache-2.0

package source

import (
	"maps"
	"slices"

	"github.com/evenkeel/evenkeel/engine"
)

// The functions below compare everything, origins included: a status that names a line must name the present one.
// reflect.DeepEqual would do the same at twenty times the cost, on every endpoint of every slice that was touched;
// TestEqualComparesEveryField holds them complete.

func equalService(a, b *engine.Service) bool {
	return a.Name == b.Name && a.Network == b.Network && slices.Equal(a.Addresses, b.Addresses) &&
		slices.Equal(a.Ports, b.Ports) && a.Affinity == b.Affinity && a.ConsistentHash == b.ConsistentHash &&
		a.LocalOnly == b.LocalOnly && a.Distribution == b.Distribution &&
		a.ExternalName == b.ExternalName && a.Origin == b.Origin
}

func equalSlice(a, b *engine.Slice) bool {
	return a.Name == b.Name && a.Service == b.Service && slices.Equal(a.Ports, b.Ports) &&
		slices.EqualFunc(a.Endpoints, b.Endpoints, equalEndpoint) && a.Origin == b.Origin
}

func equalEndpoint(a, b engine.Endpoint) bool {
	return a.Address == b.Address && a.Workload == b.Workload && a.Node == b.Node && a.Zone == b.Zone &&
		equalHints(a.Hints, b.Hints) && a.Weight == b.Weight &&
		a.Ready == b.Ready && a.Serving == b.Serving && a.Terminating == b.Terminating
}

func equalHints(a, b *engine.Hints) bool {
	if a == nil || b == nil {
		return a == b
	}
	return slices.Equal(a.Nodes, b.Nodes) && slices.Equal(a.Zones, b.Zones)
}

func equalNode(a, b *engine.Node) bool { return *a == *b }

func equalNamespace(a, b *engine.Namespace) bool { return *a == *b }

func equalWorkload(a, b *engine.Workload) bool {
	return a.Name == b.Name && a.UID == b.UID && a.Mesh == b.Mesh && a.Critical == b.Critical &&
		a.ServiceAccount == b.ServiceAccount && a.Node == b.Node && slices.Equal(a.Addresses, b.Addresses) &&
		maps.Equal(a.Labels, b.Labels) && a.HostNetwork == b.HostNetwork && a.Sidecar == b.Sidecar &&
		a.OtherMesh == b.OtherMesh && a.Origin == b.Origin
}
