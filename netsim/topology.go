// SPDX-License-Identifier: Apache-2.0

package netsim

import (
	"fmt"
	"net/netip"

	"github.com/evenkeel/evenkeel/engine/manifest"
)

// The type of the document that describes a lab.
const (
	APIVersion = "netsim.evenkeel.io/v1"
	Kind       = "Topology"
)

// Topology is a lab as its file describes it. Parse returns only valid ones.
type Topology struct {
	Name  string
	Nodes []NodeSpec
	Wires []WireSpec
	Pods  []PodSpec
	Agent AgentSpec
	// Dataplane carries the connections of pods that are enrolled.
	Dataplane Dataplane
	// Documents are the Kubernetes documents of the file: its text with the lines of the Topology left empty, so that
	// lines keep their numbers.
	Documents string
	// Skipped are those of Documents whose kinds agents do not read.
	Skipped []manifest.Skipped
	// File is where it was read from, for messages.
	File string

	lines map[string]int // by field path, as in the errors
}

// NodeSpec is one node: a network namespace that forwards.
type NodeSpec struct {
	Name string `json:"name"`
	// PodCIDRs has at most one prefix per family. The second address of each is the node's own, the following ones are
	// given to pods in turn.
	PodCIDRs []netip.Prefix    `json:"podCIDRs"`
	Labels   map[string]string `json:"labels,omitempty"`
}

// WireSpec is a veth pair between two nodes.
type WireSpec struct {
	Between []string `json:"between"`
	// MTU is in bytes; 0 means 1500.
	MTU int `json:"mtu,omitempty"`
}

// PodSpec is one pod or, with Count > 1, the pods Name-0, Name-1 and so on.
type PodSpec struct {
	Name           string            `json:"name"`
	Namespace      string            `json:"namespace,omitempty"` // default "default"
	Node           string            `json:"node"`
	Count          int               `json:"count,omitempty"`
	Labels         map[string]string `json:"labels,omitempty"`
	Annotations    map[string]string `json:"annotations,omitempty"`
	ServiceAccount string            `json:"serviceAccount,omitempty"` // default "default"
	// Serve lists built-in servers: "http :8080", "tcp :9000", "udp :9001".
	Serve []string   `json:"serve,omitempty"`
	Ports []PortSpec `json:"ports,omitempty"`
	// Command runs in the pod once it is enrolled.
	Command []string `json:"command,omitempty"`
	Enrol   bool     `json:"enrol,omitempty"`
	// HostNetwork puts the pod into its node's network namespace.
	HostNetwork bool `json:"hostNetwork,omitempty"`
	// Containers are the names in the pod's document; default is one, named as the pod.
	Containers []string `json:"containers,omitempty"`
}

// PortSpec is a named port of the pod's first container.
type PortSpec struct {
	Name          string `json:"name,omitempty"`
	ContainerPort int    `json:"containerPort"`
	Protocol      string `json:"protocol,omitempty"` // TCP (default) or UDP
}

// AgentSpec says whether nodes run an agent, and what is added to its command line.
type AgentSpec struct {
	Enabled bool `json:"enabled,omitempty"`
	// Unchecked leaves out the check of what pods send for its source: attaching it takes the kernel a grace period a pod,
	// one after the other.
	Unchecked bool     `json:"unchecked,omitempty"`
	Args      []string `json:"args,omitempty"`
}

// key names a pod within its lab.
func (p *PodSpec) key() string { return p.Namespace + "/" + p.Name }

// expand returns one specification per pod, the count resolved.
func (p PodSpec) expand() []PodSpec {
	count := p.Count
	p.Count = 0
	if count <= 1 {
		return []PodSpec{p}
	}
	pods := make([]PodSpec, count)
	for i := range pods {
		pods[i] = p
		pods[i].Name = fmt.Sprintf("%s-%d", p.Name, i)
	}
	return pods
}

// pods returns all pods, counts resolved.
func (t *Topology) pods() []PodSpec {
	var all []PodSpec
	for _, p := range t.Pods {
		all = append(all, p.expand()...)
	}
	return all
}
