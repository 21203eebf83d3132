// SPDX-License-Identifier: Apache-2.0

// Package netsim builds a cluster out of network namespaces on one kernel: nodes, wires between them, pods with
// addresses and servers, and one node agent per node, from one YAML file. It owns everything that carries the name of
// a lab:
//
//	/run/evenkeel-sim/LAB/                    the lab's directory; flock on it is the right to change the lab
//	  state.json                              what there is (see state), replaced atomically
//	  journal                                 what is being done and by whom, one JSON object per line
//	  ns/NODE, ns/NODE_NAMESPACE_POD          network namespaces, bind-mounted into one tmpfs
//	  nodes/NODE/{admin.sock,agent.log}       the agent's
//	  nodes/NODE/ambient.json, authority/     of data planes that are proxies
//	  pods/NAMESPACE_POD/*.log                output of the pod's processes
//	  manifests/                              Kubernetes documents: what the agents read
//	/run/netns/sim-LAB-NODE                   links to ns/, for other tools
//	CGROUP2/evenkeel-sim/LAB/{nodes/NODE/POD,agents/NODE,host/NODE}
//	/sys/fs/bpf/evenkeel-sim/LAB/             a bpffs of its own
//	/sys/fs/bpf/evenkeel-sim/LAB/NODE         pins of the node's agent
//
// Nothing else is made, nothing ever exists in the namespace of the host, and whatever is found below these directories
// is the lab's: cleaning up after a crash needs no guess by name.
//
// The command line and the end-to-end suites call it. It never loads or attaches BPF and never enrols a pod by
// itself: it runs the built evenkeel for that.
package netsim
