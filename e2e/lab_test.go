// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/evenkeel/evenkeel/netsim"
)

// lab is one simulated cluster, its agents and its pods running, of one build of evenkeel.
type lab struct {
	*netsim.Lab
	name, binary string
}

// labs counts those of this process. A name holds the pid, so labs of parallel processes share nothing.
var labs atomic.Int32

func nextName() string { return fmt.Sprintf("e2e-%d-%d", os.Getpid(), labs.Add(1)) }

// newLab makes a lab. It goes when the container or spec that made it ends, and must leave nothing behind.
func newLab(ctx SpecContext, spec string) *lab {
	GinkgoHelper()
	return newLabOf(ctx, built.evenkeel, spec)
}

// newLabOf is newLab with agents and commands of another build.
func newLabOf(ctx SpecContext, binary, spec string) *lab {
	GinkgoHelper()
	l := &lab{name: nextName(), binary: binary}
	parsed, err := netsim.Parse(strings.NewReader(topology(l.name, spec)), l.name)
	Expect(err).NotTo(HaveOccurred())
	held := heldHere()
	l.Lab, err = netsim.Up(ctx, parsed, netsim.Options{Binary: binary})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func(ctx SpecContext) {
		if CurrentSpecReport().Failed() {
			l.explain(parsed)
		}
		had, err := collectOwned(filepath.Join(bpffs, "evenkeel-sim", l.name),
			filepath.Join(cgroup2(), "evenkeel-sim", l.name))
		Expect(err).NotTo(HaveOccurred())
		Expect(l.Down(ctx)).To(Succeed())
		expectGone(ctx, l.name, had, held)
	})
	return l
}

// explain adds what the agents of a failed spec logged to its report.
func (l *lab) explain(spec *netsim.Topology) {
	for _, node := range spec.Nodes {
		text, err := os.ReadFile(filepath.Join(l.dir(), "nodes", node.Name, "agent.log"))
		if err == nil {
			AddReportEntry("agent of "+node.Name, string(text), ReportEntryVisibilityFailureOrVerbose)
		}
	}
}

// Where things of a lab are: see the package comment of netsim.
func (l *lab) dir() string              { return filepath.Join(stateDir, l.name) }
func (l *lab) source() string           { return filepath.Join(l.dir(), "manifests") }
func (l *lab) admin(node string) string { return filepath.Join(l.dir(), "nodes", node, "admin.sock") }
func (l *lab) pins(node string) string  { return filepath.Join(bpffs, "evenkeel-sim", l.name, node) }
func (l *lab) netns(pod string) string  { return l.pod(pod).Netns }
func (l *lab) cgroup(kind, node string) string {
	return filepath.Join(cgroup2(), "evenkeel-sim", l.name, kind, node)
}

// pod returns a pod of the namespace default.
func (l *lab) pod(name string) *netsim.Pod { return l.Pod("default/" + name) }

func (l *lab) nodeOf(pod string) string { return l.pod(pod).Node }

// addressOf returns the address of a pod of family 4 or 6.
func (l *lab) addressOf(pod string, family int) string {
	GinkgoHelper()
	for _, address := range l.pod(pod).Addresses {
		if address.Is4() == (family == 4) {
			return address.String()
		}
	}
	Fail(fmt.Sprintf("pod %s has no IPv%d address", pod, family))
	return ""
}

// put writes a file of the agents' source, or replaces it, at once.
func (l *lab) put(name, text string) {
	GinkgoHelper()
	next := filepath.Join(l.source(), "."+name)
	Expect(os.WriteFile(next, []byte(text), 0o644)).To(Succeed())
	Expect(os.Rename(next, filepath.Join(l.source(), name+".yaml"))).To(Succeed())
}

// drop removes a file of the agents' source that may be there.
func (l *lab) drop(name string) {
	GinkgoHelper()
	Expect(os.RemoveAll(filepath.Join(l.source(), name+".yaml"))).To(Succeed())
}

// evenkeel runs a command of the lab's build on a node, with the flags that lead it to the node's state.
func (l *lab) evenkeel(ctx context.Context, node string, args ...string) result {
	GinkgoHelper()
	where := map[string][]string{
		"status":  {"--pin-dir", l.pins(node), "--admin", l.admin(node)},
		"dump":    {"--pin-dir", l.pins(node), "--admin", l.admin(node)},
		"explain": {"--pin-dir", l.pins(node), "--admin", l.admin(node)},
		"upgrade": {"--pin-dir", l.pins(node), "--cgroup", l.cgroup("nodes", node)},
	}
	flags, known := where[args[0]]
	if !known {
		flags = []string{"--pin-dir", l.pins(node)}
	}
	return runIn(ctx, l.Node(node), nil, l.binary, append(args, flags...)...)
}

// enrol puts a running pod in, withdraw takes it out; the manifests say what speaks against it.
func (l *lab) enrol(ctx context.Context, pod string, more ...string) result {
	GinkgoHelper()
	return l.evenkeel(ctx, l.nodeOf(pod), append([]string{"enrol", "--netns", l.netns(pod), "--pod", "default/" + pod,
		"--manifests", l.source()}, more...)...)
}

func (l *lab) withdraw(ctx context.Context, pod string) result {
	GinkgoHelper()
	return l.evenkeel(ctx, l.nodeOf(pod), "withdraw", "--netns", l.netns(pod), "--pod", "default/"+pod)
}

// agentCommand is a second agent of a node. It answers where the first does, if that is gone.
func (l *lab) agentCommand(ctx context.Context, node string, more ...string) *exec.Cmd {
	return l.Node(node).Command(ctx, l.binary, append([]string{"agent", "--node", node, "--source", l.source(),
		"--pin-dir", l.pins(node), "--cgroup", l.cgroup("nodes", node), "--admin", l.admin(node), "--metrics="}, more...)...)
}

// agent runs a second agent of a node to its end, which is expected to come soon.
func (l *lab) agent(ctx context.Context, node string, more ...string) result {
	GinkgoHelper()
	return finish(l.agentCommand(ctx, node, more...))
}

// stopAgent sends a signal to a node's agent and returns how it ended.
func (l *lab) stopAgent(ctx context.Context, node string, signal syscall.Signal) error {
	GinkgoHelper()
	Expect(l.KillAgent(ctx, node, signal)).To(Succeed())
	return l.WaitAgent(ctx, node)
}

// startAgent starts a node's agent again and returns when it is ready.
func (l *lab) startAgent(ctx context.Context, node string, more ...string) {
	GinkgoHelper()
	Expect(l.StartAgent(ctx, node, more...)).To(Succeed())
}

// startAgentLater starts a node's agent and does not wait: the channel tells when it is ready, or why it is not.
func (l *lab) startAgentLater(ctx context.Context, node string, more ...string) <-chan error {
	started := make(chan error, 1)
	go func() { started <- l.StartAgent(ctx, node, more...) }() // ends when the agent is ready or the spec's ctx ends
	return started
}

// agentPID returns the process of a node's agent.
func (l *lab) agentPID(node string) int {
	GinkgoHelper()
	pids := processesOf(l.cgroup("agents", node))
	Expect(pids).To(HaveLen(1), "agents of node %s", node)
	pid, err := strconv.Atoi(pids[0])
	Expect(err).NotTo(HaveOccurred())
	return pid
}

// host is the place of commands that an operator types on the machine itself.
type host struct{}

// Command is exec.CommandContext.
func (host) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, name, args...)
}

// owned returns every BPF object of a node: pinned, or held by its agent.
func (l *lab) owned(node string) (objects, error) {
	return collectOwned(l.pins(node), l.cgroup("agents", node))
}
