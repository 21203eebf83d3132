// SPDX-License-Identifier: Apache-2.0

package netsim

import "path/filepath"

const (
	// stateRoot holds the directories of labs.
	stateRoot = "/run/evenkeel-sim"
	bpffsRoot = "/sys/fs/bpf"
	// family is the directory of all labs below the cgroup root and the bpffs.
	family    = "evenkeel-sim"
	netnsRoot = "/run/netns" // where iproute2 looks for names
)

// paths are the places of one lab. Nothing outside them is the lab's.
type paths struct {
	cgroup2 string // mount point of the unified hierarchy
	lab     string
}

// newPaths finds the places of a lab.
func newPaths(lab string) (paths, error) {
	cgroup2, err := findCgroup2()
	if err != nil {
		return paths{}, err
	}
	return paths{cgroup2: cgroup2, lab: lab}, nil
}

func (p paths) dir() string        { return filepath.Join(stateRoot, p.lab) }
func (p paths) state() string      { return filepath.Join(p.dir(), "state.json") }
func (p paths) journal() string    { return filepath.Join(p.dir(), "journal") }
func (p paths) namespaces() string { return filepath.Join(p.dir(), "ns") }
func (p paths) manifests() string  { return filepath.Join(p.dir(), "manifests") }
func (p paths) authority() string  { return filepath.Join(p.dir(), "authority") }
func (p paths) cgroup() string     { return filepath.Join(p.cgroup2, family, p.lab) }
func (p paths) pins() string       { return filepath.Join(bpffsRoot, family, p.lab) }

func (p paths) nodeNetns(node string) string  { return filepath.Join(p.namespaces(), node) }
func (p paths) nodeDir(node string) string    { return filepath.Join(p.dir(), "nodes", node) }
func (p paths) nodePins(node string) string   { return filepath.Join(p.pins(), node) }
func (p paths) nodeCgroup(node string) string { return filepath.Join(p.cgroup(), "nodes", node) }
func (p paths) agentCgroup(node string) string {
	return filepath.Join(p.cgroup(), "agents", node)
}

// hostCgroup is for commands on a node outside all pods: the agent's hooks, which are on nodeCgroup, do not see them.
func (p paths) hostCgroup(node string) string { return filepath.Join(p.cgroup(), "host", node) }

// Names of Kubernetes have no underscore, so these are unambiguous.

func (p paths) podNetns(pod *podState) string {
	if pod.Spec.HostNetwork {
		return p.nodeNetns(pod.Spec.Node)
	}
	return p.nodeNetns(pod.Spec.Node) + "_" + pod.file()
}

// shownNetns is where other tools find a node's namespace.
func (p paths) shownNetns(node string) string { return filepath.Join(netnsRoot, "sim-"+p.lab+"-"+node) }

func (p paths) podDir(pod *podState) string { return filepath.Join(p.dir(), "pods", pod.file()) }

func (p paths) podCgroup(pod *podState) string {
	return filepath.Join(p.nodeCgroup(pod.Spec.Node), pod.file())
}

// Places are the directories under which everything of a lab is; once it is down, there is none of them.
type Places struct {
	Dir        string // its files
	Namespaces string // where its network namespaces are mounted, below Dir
	Pins       string // its BPF file system
	Cgroup     string // of the unified hierarchy
}

// Places returns where everything of the lab is.
func (l *Lab) Places() Places {
	p := l.paths
	return Places{Dir: p.dir(), Namespaces: p.namespaces(), Pins: p.pins(), Cgroup: p.cgroup()}
}
