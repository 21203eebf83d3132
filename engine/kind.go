// SPDX-License-Identifier: Apache-2.0

package engine

import "strconv"

// String returns the kind as it is written in messages: "service".
func (k Kind) String() string {
	switch k {
	case Services:
		return "service"
	case Slices:
		return "slice"
	case Nodes:
		return "node"
	case Workloads:
		return "workload"
	case Namespaces:
		return "namespace"
	}
	return "kind " + strconv.Itoa(int(k))
}
