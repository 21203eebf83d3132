// SPDX-License-Identifier: Apache-2.0

package netsim

import (
	"net/netip"
	"time"
)

// InfoVersion is the version of the fields of Info. Fields may be added; those that are there keep their names and
// meaning as long as it stays.
const InfoVersion = "v1"

// Info describes a lab, as `evenkeel sim inspect -o json` prints it.
type Info struct {
	Version string    `json:"version"`
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
	// Dataplane carries the connections of enrolled pods.
	Dataplane Dataplane `json:"dataplane"`
	// Owner is the process that the lab belongs to; a lab without one stays until it is taken down.
	Owner *Process `json:"owner,omitempty"`
	// Manifests is the directory that the agents read.
	Manifests string     `json:"manifests"`
	Nodes     []NodeInfo `json:"nodes"`
	Wires     []WireInfo `json:"wires"`
	Pods      []PodInfo  `json:"pods"`
}

// NodeInfo is a node. Paths are absolute.
type NodeInfo struct {
	Name      string            `json:"name"`
	Labels    map[string]string `json:"labels"`
	Addresses []netip.Addr      `json:"addresses"`
	PodCIDRs  []netip.Prefix    `json:"podCIDRs"`
	Netns     string            `json:"netns"`
	Cgroup    string            `json:"cgroup"`
	PinDir    string            `json:"pinDir"`
	Agent     AgentInfo         `json:"agent"`
}

// Agent states.
const (
	AgentNone    = "none"    // the topology wants none, and none was started
	AgentRunning = "running" // it said that it is ready, and runs
	AgentDead    = "dead"    // it has ended
)

// AgentInfo is a node's agent, or what takes its place in other data planes. Admin is that of an evenkeel agent. PID is that of the last one, 0 if there never was one.
type AgentInfo struct {
	State string `json:"state"`
	PID   int    `json:"pid,omitempty"`
	Log   string `json:"log,omitempty"`
	Admin string `json:"admin,omitempty"`
}

// WireInfo is a wire. MTU is in bytes; Link is its name on both nodes.
type WireInfo struct {
	Between [2]string `json:"between"`
	MTU     int       `json:"mtu"`
	Link    string    `json:"link"`
}

// PodInfo is a pod. Link is the node's end of its veth, empty on hostNetwork.
type PodInfo struct {
	Namespace   string            `json:"namespace"`
	Name        string            `json:"name"`
	Node        string            `json:"node"`
	Labels      map[string]string `json:"labels"`
	Addresses   []netip.Addr      `json:"addresses"`
	HostNetwork bool              `json:"hostNetwork"`
	Netns       string            `json:"netns"`
	Cgroup      string            `json:"cgroup"`
	Link        string            `json:"link,omitempty"`
	Serve       []string          `json:"serve"`
	// Enrolled is what the lab did, and false where the data plane that it was done in has been uninstalled since; whether
	// somebody has withdrawn the pod is the agent's to say (evenkeel status).
	Enrolled  bool          `json:"enrolled"`
	Refusal   string        `json:"refusal,omitempty"`
	Processes []ProcessInfo `json:"processes"`
	// Logs is the directory of the output of its processes.
	Logs string `json:"logs"`
}

// ProcessInfo is a process that the lab started in a pod.
type ProcessInfo struct {
	PID     int      `json:"pid"`
	Running bool     `json:"running"`
	Command []string `json:"command"`
}

// Info returns what there is now.
func (l *Lab) Info() Info {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, p := l.state, l.paths
	info := Info{Version: InfoVersion, Name: s.Name, Created: s.Created, Owner: s.Owner, Manifests: p.manifests(),
		Dataplane: s.Dataplane,
		Nodes:     []NodeInfo{}, Wires: []WireInfo{}, Pods: []PodInfo{}}
	for _, n := range s.Nodes {
		info.Nodes = append(info.Nodes, NodeInfo{Name: n.Spec.Name, Labels: n.Spec.Labels, PodCIDRs: n.Spec.PodCIDRs,
			Addresses: n.Spec.addresses(nodeOrdinal), Netns: p.nodeNetns(n.Spec.Name), Cgroup: p.nodeCgroup(n.Spec.Name),
			PinDir: p.nodePins(n.Spec.Name), Agent: l.agentInfo(n)})
	}
	for _, w := range s.Wires {
		info.Wires = append(info.Wires, WireInfo{Between: w.Ends, MTU: w.MTU, Link: wireName(w.Number)})
	}
	for _, pod := range s.Pods {
		info.Pods = append(info.Pods, l.podInfo(pod))
	}
	return info
}

func (l *Lab) agentInfo(n *nodeState) AgentInfo {
	if n.Agent == nil {
		return AgentInfo{State: AgentNone}
	}
	info := AgentInfo{State: AgentDead, PID: n.Agent.PID, Log: l.agentLog(n.Spec.Name)}
	if l.state.Dataplane == Evenkeel {
		info.Admin = l.adminSocket(n.Spec.Name)
	}
	if n.Agent.Alive() {
		info.State = AgentRunning
	}
	return info
}

func (l *Lab) podInfo(pod *podState) PodInfo {
	info := PodInfo{Namespace: pod.Spec.Namespace, Name: pod.Spec.Name, Node: pod.Spec.Node, Labels: pod.Spec.Labels,
		Addresses: pod.Addresses, HostNetwork: pod.Spec.HostNetwork, Netns: l.paths.podNetns(pod),
		Cgroup: l.paths.podCgroup(pod), Serve: pod.Spec.Serve, Enrolled: l.enrolled(pod), Refusal: pod.Refusal,
		Logs: l.paths.podDir(pod)}
	if !pod.Spec.HostNetwork {
		info.Link = podLinkName(pod.Ordinal)
	}
	for _, process := range pod.Processes {
		info.Processes = append(info.Processes,
			ProcessInfo{PID: process.PID, Running: process.Alive(), Command: process.Command})
	}
	return info
}
