// SPDX-License-Identifier: Apache-2.0

package netsim

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// ErrNotFound is returned where there is no lab, node or pod of a name.
var ErrNotFound = errors.New("not found")

// Lab is a lab that is up. Its methods may be called from several goroutines.
type Lab struct {
	options Options
	paths   paths

	mu     sync.Mutex
	state  *state
	agents map[string]*child // those that this process started, by node
	// others are the pods' processes that this process started.
	others []*child
}

// Node is a node of a lab.
type Node struct {
	Name string
	// Addresses are the node's own, at most one per family.
	Addresses []netip.Addr
	// Netns is the path of its network namespace, Cgroup the directory that its agent attaches to: the pods are below it.
	Netns, Cgroup string
	place
}

// Pod is a pod of a lab.
type Pod struct {
	Name, Namespace, Node string
	// Addresses are those of status.podIPs: at most one per family.
	Addresses []netip.Addr
	// Netns is the path of its network namespace, Cgroup the directory of its processes.
	Netns, Cgroup string
	// Enrolled tells whether it was enrolled when the lab was made or last changed, in a data plane that is still there; if
	// it should have been and was not, Refusal is why.
	Enrolled bool
	Refusal  string
	place
}

// place is where commands run.
type place struct{ binary, netns, cgroup string }

// Command returns a command that will run there, in the place's network namespace and cgroup. It is run through
// `evenkeel sim enter`, which replaces itself: the process is the command. One that cannot be run exits with status 1
// and says why on standard error.
func (p place) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	enter := []string{"sim", "enter", "--netns", p.netns, "--cgroup", p.cgroup, "--", name}
	return exec.CommandContext(ctx, p.binary, append(enter, args...)...)
}

// Enter replaces this process with a command in the place; see the function Enter.
func (p place) Enter(command []string) error { return Enter(p.netns, p.cgroup, command) }

// Attach returns a lab that is up. It returns ErrNotFound if there is none of that name.
func Attach(name string, options Options) (*Lab, error) {
	options, err := options.complete()
	if err != nil {
		return nil, err
	}
	p, err := newPaths(name)
	if err != nil {
		return nil, err
	}
	s, err := p.whole()
	if err != nil {
		return nil, err
	}
	if s == nil {
		if names, err := Names(); err == nil && slices.Contains(names, name) {
			return nil, fmt.Errorf("lab %s as a whole: %w: it is halfway up or down; evenkeel sim gc removes what nobody is at",
				name, ErrNotFound)
		}
		return nil, fmt.Errorf("lab %s: %w: evenkeel sim ls lists those that are up", name, ErrNotFound)
	}
	return &Lab{options: options, paths: p, state: s, agents: map[string]*child{}}, nil
}

// Name returns the lab's name.
func (l *Lab) Name() string { return l.paths.lab }

// Node returns a node, nil if there is none of that name. Commands on it run in a cgroup outside all pods, so the
// agent's hooks at cgroups do not see them.
func (l *Lab) Node(name string) *Node {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.state.node(name)
	if n == nil {
		return nil
	}
	netns := l.paths.nodeNetns(name)
	return &Node{Name: name, Addresses: n.Spec.addresses(nodeOrdinal), Netns: netns, Cgroup: l.paths.nodeCgroup(name),
		place: place{l.options.Binary, netns, l.paths.hostCgroup(name)}}
}

// Pod returns a pod by "namespace/name", or "name" for one in the namespace default; nil if there is none.
func (l *Lab) Pod(name string) *Pod {
	if !strings.Contains(name, "/") {
		name = "default/" + name
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.state.pod(name)
	if p == nil {
		return nil
	}
	netns, cgroup := l.paths.podNetns(p), l.paths.podCgroup(p)
	return &Pod{Name: p.Spec.Name, Namespace: p.Spec.Namespace, Node: p.Spec.Node, Addresses: p.Addresses, Netns: netns,
		Cgroup: cgroup, Enrolled: l.enrolled(p), Refusal: p.Refusal, place: place{l.options.Binary, netns, cgroup}}
}

// StartAgent starts the agent of a node where none runs, with args after those of the topology, and returns when it is
// ready. If it ends before, the error says how and what it wrote last.
func (l *Lab) StartAgent(ctx context.Context, node string, args ...string) error {
	return l.StartAgentUnder(ctx, node, nil, args...)
}

// StartAgentUnder is StartAgent for an agent that another program prepares: wrapper is the beginning of a command line
// that ends with the agent's, and becomes the agent by execve(2). Nil is none.
func (l *Lab) StartAgentUnder(ctx context.Context, node string, wrapper []string, args ...string) error {
	unlock, err := l.change()
	if err != nil {
		return err
	}
	defer unlock()
	n := l.state.node(node)
	if n == nil {
		return l.noNode(node)
	}
	if n.Agent != nil && n.Agent.Alive() {
		return fmt.Errorf("start agent of node %s: it runs as process %d: kill it first", node, n.Agent.PID)
	}
	if n.Agent != nil { // a thread of the last one may hold the lease still
		if err := n.Agent.Wait(ctx); err != nil {
			return fmt.Errorf("wait for the last agent of node %s: %w", node, err)
		}
	}
	all := append(append([]string{}, l.state.Agent.Args...), args...)
	if err := l.startAgent(ctx, n, wrapper, all); err != nil {
		return fmt.Errorf("start agent of node %s: %w", node, err)
	}
	return l.state.write(l.paths.state())
}

// KillAgent sends a signal to a node's agent. It does not wait: see WaitAgent.
func (l *Lab) KillAgent(ctx context.Context, node string, signal os.Signal) error {
	number, ok := signal.(unix.Signal)
	if !ok {
		return fmt.Errorf("signal agent of node %s: %v is no signal of this system", node, signal)
	}
	agent, _, err := l.agent(node)
	if err != nil {
		return err
	}
	if err := agent.Signal(number); err != nil {
		return fmt.Errorf("signal agent of node %s: %w", node, err)
	}
	return ctx.Err()
}

// WaitAgent returns when a node's agent has ended: nil if with status 0, else an *exec.ExitError. Where another process
// started the agent, how it ended is not known, and the answer is nil.
func (l *Lab) WaitAgent(ctx context.Context, node string) error {
	agent, child, err := l.agent(node)
	if err != nil {
		return err
	}
	if child != nil {
		return child.waitExit(ctx)
	}
	return agent.Wait(ctx)
}

// agent returns the last agent of a node; child is nil if another process started it.
func (l *Lab) agent(node string) (Process, *child, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.state.node(node)
	if n == nil {
		return Process{}, nil, l.noNode(node)
	}
	if n.Agent == nil {
		return Process{}, nil, fmt.Errorf("agent of node %s in lab %s: %w: the node never had one", node, l.Name(),
			ErrNotFound)
	}
	return *n.Agent, l.agents[node], nil
}

func (l *Lab) noNode(node string) error {
	return fmt.Errorf("node %s in lab %s: %w", node, l.Name(), ErrNotFound)
}

// Refresh reads what other processes have changed in the lab since: agents that they started, for one. It returns
// ErrNotFound if the lab was taken down.
func (l *Lab) Refresh() error {
	s, err := l.paths.whole()
	if err != nil {
		return err
	}
	if s == nil {
		return fmt.Errorf("lab %s: %w: it was taken down", l.Name(), ErrNotFound)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state = s
	return nil
}

// change takes the right to change the lab, and reads what others have changed meanwhile.
func (l *Lab) change() (unlock func(), err error) {
	unlock, err = l.paths.lock()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("lab %s: %w: it was taken down", l.Name(), ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("change lab %s: %w", l.Name(), err)
	}
	s, err := l.paths.whole()
	if err == nil && s == nil {
		err = fmt.Errorf("lab %s: %w: it was taken down halfway, evenkeel sim down finishes that", l.Name(), ErrNotFound)
	}
	if err != nil {
		unlock()
		return nil, err
	}
	l.mu.Lock()
	l.state = s
	l.mu.Unlock()
	return unlock, nil
}

// newCounter returns a function that counts its calls, from 1.
func newCounter() func() int {
	var n atomic.Int64
	return func() int { return int(n.Add(1)) }
}
