// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"net/netip"
	"strconv"
	"time"
)

// Protocol is an IP protocol number as the kernel knows it (RFC 790): 6 is TCP, 17 is UDP.
type Protocol uint8

// The protocols that a service port can have here. Others (SCTP) are left to the cluster and named by the source.
const (
	TCP Protocol = 6
	UDP Protocol = 17
)

// String returns "TCP", "UDP" or "protocol N".
func (p Protocol) String() string {
	switch p {
	case TCP:
		return "TCP"
	case UDP:
		return "UDP"
	}
	return "protocol " + strconv.Itoa(int(p))
}

// Distribution is the preference of a service for near endpoints (Kubernetes trafficDistribution).
type Distribution uint8

const (
	// Anywhere has no preference.
	Anywhere Distribution = iota
	// SameZone prefers endpoints hinted to the client's zone (PreferClose, PreferSameZone).
	SameZone
	// SameNode prefers endpoints hinted to the client's node, then its zone (PreferSameNode).
	SameNode
)

// Service is an address:port set that workloads dial. It is free of Kubernetes types: Name is "namespace/name" where
// the source has namespaces, any unique string otherwise.
type Service struct {
	Name string
	// Network scopes the addresses; 0 is the node's own network.
	Network uint32
	// Addresses are the cluster addresses, at most one of a family. None: headless, nothing is governed.
	Addresses []netip.Addr
	Ports     []ServicePort
	// Affinity keeps a workload on one endpoint until it was idle that long; 0 is off.
	Affinity time.Duration
	// ConsistentHash chooses the endpoint by the workload's address (Maglev) instead of at random.
	ConsistentHash bool
	// LocalOnly allows endpoints on this node only, and refuses where there is none (internalTrafficPolicy: Local).
	LocalOnly    bool
	Distribution Distribution
	// ExternalName is the DNS name that the service is another name for; it has no addresses then. Only people see it.
	ExternalName string
	// Origin says where the service was read, for people: "web.yaml:12".
	Origin string
}

// ServicePort is one port of a service. Name ties it to the ports of its slices; it is empty for a single unnamed port.
type ServicePort struct {
	Name     string
	Protocol Protocol
	Port     uint16
}

// Slice is a set of endpoints of one service and one address family that share their ports. A service has any number
// of slices; an endpoint that several of them list counts once.
type Slice struct {
	Name string
	// Service is the Name of the service; it may be upserted later, or never.
	Service string
	Ports   []SlicePort
	// Endpoints are of one address family.
	Endpoints []Endpoint
	Origin    string
}

// SlicePort is the target port behind the service port of the same Name and Protocol.
type SlicePort struct {
	Name     string
	Protocol Protocol
	Port     uint16
}

// Endpoint is one address behind a service. Conditions are those of discovery.k8s.io/v1. It is 88 bytes, and there are
// 100,000 of them: a source gives strings that many share from one place.
type Endpoint struct {
	Address netip.Addr
	// Workload is the name of the pod behind it, "namespace/name", empty if it is none.
	Workload string
	// Node is the node it runs on, Zone that node's zone; empty if unknown.
	Node, Zone string
	// Hints are those of trafficDistribution; nil if the source has none.
	Hints *Hints
	// Weight is the share of new connections relative to the service's other endpoints; 0 receives none.
	Weight                      uint32
	Ready, Serving, Terminating bool
}

// Hints say where the clients are that an endpoint is meant for.
type Hints struct {
	Nodes, Zones []string
}

// Node is a machine of the cluster. Zone is empty if unknown.
type Node struct {
	Name, Zone string
	Origin     string
}

// Wish is what somebody has said that the mesh is to do with a pod, or with all pods of a namespace.
type Wish uint8

// The wishes.
const (
	NoWish Wish = iota
	InMesh
	OutOfMesh
)

// Namespace is what was said about all pods of a namespace that say nothing themselves. OtherMesh is as in Workload.
type Namespace struct {
	Name      string
	Mesh      Wish
	OtherMesh string
	Origin    string
}

// Workload is a pod as the sources know it, enrolled or not.
type Workload struct {
	// Name is "namespace/name". UID tells it from the next pod of that name; it is empty where the source has none.
	Name, UID      string
	Mesh           Wish // its own, which goes before that of its namespace
	Critical       bool // the cluster does not work without it
	ServiceAccount string
	Node           string
	Addresses      []netip.Addr
	Labels         map[string]string
	// HostNetwork, Sidecar and OtherMesh are what makes a pod ineligible: it shares the node's namespace, it has a
	// proxy container of that name, it is owned by the mesh of that name.
	HostNetwork        bool
	Sidecar, OtherMesh string
	Origin             string
}

// Kind is a kind of resource that a source feeds.
type Kind uint8

// The kinds. A source that never has one of them reports it as synced at once.
const (
	Services Kind = iota
	Slices
	Nodes
	Workloads
	Namespaces
	kinds
)

// Change is a set of differences from one source, applied as one: a nil value deletes that key, and a key that is not
// there is left as it is. Keys are the resources' Names.
type Change struct {
	Services  map[string]*Service
	Slices    map[string]*Slice
	Nodes     map[string]*Node
	Workloads map[string]*Workload
	// Namespaces are those of pods, not of networks.
	Namespaces map[string]*Namespace
	// Synced lists the kinds of which this source has now sent all that it knows. What an earlier process left in the
	// kernel, and no source has sent when all are synced, is removed; before that nothing is.
	Synced []Kind
}
