// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/netsim"
	"github.com/evenkeel/evenkeel/netsim/fault/supervisor"
)

// Agent is the agent of a node, whichever process that is at the time.
type Agent struct {
	Lab    string `json:"lab"`
	Node   string `json:"node"`
	Binary string `json:"binary"` // the evenkeel of the lab
	// Self is as in Options; only faults that supervise need it.
	Self []string `json:"self,omitempty"`

	lab *netsim.Lab // of this process; nil in another one
}

// NewAgent returns the agent of a node of a lab. binary is that of the lab's options.
func NewAgent(lab *netsim.Lab, node, binary string, self []string) *Agent {
	return &Agent{Lab: lab.Name(), Node: node, Binary: binary, Self: self, lab: lab}
}

func (a *Agent) String() string { return "agent/" + a.Node }

func (a *Agent) open() (*netsim.Lab, error) {
	if a.lab != nil {
		return a.lab, a.lab.Refresh()
	}
	return netsim.Attach(a.Lab, netsim.Options{Binary: a.Binary})
}

// info returns what the lab says about the agent's node.
func (a *Agent) info() (netsim.Info, netsim.NodeInfo, error) {
	lab, err := a.open()
	if err != nil {
		return netsim.Info{}, netsim.NodeInfo{}, err
	}
	info := lab.Info()
	for _, n := range info.Nodes {
		if n.Name == a.Node {
			return info, n, nil
		}
	}
	return netsim.Info{}, netsim.NodeInfo{}, fmt.Errorf("node %s in lab %s: %w", a.Node, a.Lab, netsim.ErrNotFound)
}

// process returns the agent that runs, os.ErrProcessDone if none does.
func (a *Agent) process() (netsim.Process, error) {
	_, node, err := a.info()
	if err != nil {
		return netsim.Process{}, err
	}
	if node.Agent.State != netsim.AgentRunning {
		return netsim.Process{}, fmt.Errorf("agent of node %s: %w", a.Node, os.ErrProcessDone)
	}
	return netsim.ProcessOf(node.Agent.PID)
}

// start makes sure that an agent runs and is ready. A lab that is gone needs none.
func (a *Agent) start(ctx context.Context) error {
	if _, err := a.process(); err == nil {
		return nil
	} else if errors.Is(err, netsim.ErrNotFound) {
		return nil
	} else if !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	lab, err := a.open()
	if err != nil {
		return err
	}
	return patient(ctx, func() error { return lab.StartAgent(ctx, a.Node) })
}

// patient does what changes a lab, again while another process changes it: faults may be healed side by side.
func patient(ctx context.Context, change func() error) error {
	var last error
	return await(ctx, "nobody else changes the lab", func() (bool, error) {
		last = change()
		if errors.Is(last, netsim.ErrBusy) {
			return false, nil
		}
		return true, last
	})
}

// end kills the agent that runs, if one does, and waits for that.
func (a *Agent) end(ctx context.Context) error {
	p, err := a.process()
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	if err != nil {
		return err
	}
	return killProcess(ctx, p)
}

// restart ends the agent and starts it again: it puts right what it finds. A lab that is gone needs none.
func (a *Agent) restart(ctx context.Context) error {
	if err := a.end(ctx); err != nil && !errors.Is(err, netsim.ErrNotFound) {
		return err
	}
	return a.start(ctx)
}

func killProcess(ctx context.Context, p netsim.Process) error {
	if err := p.Signal(unix.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return p.Wait(ctx)
}

// Supervise starts the agent under a supervisor, in a place where none runs. It returns when the agent is ready, has
// ended, or was stopped or wedged. Calls are given to decide in the words of [Agent.Words]. Close the run: that ends the
// agent. The context must last as long as the start.
func (a *Agent) Supervise(ctx context.Context, calls []string, decide supervisor.Decide) (*Run, error) {
	lab, err := a.open()
	if err != nil {
		return nil, err
	}
	if decide != nil {
		decide = a.translated(decide)
	}
	s, err := newSupervisor(a.Self, calls, decide)
	if err != nil {
		return nil, fmt.Errorf("supervise agent of node %s: %w", a.Node, err)
	}
	run := &Run{Supervisor: s, started: make(chan struct{})}
	go func() {
		defer close(run.started)
		run.err = patient(ctx, func() error { return lab.StartAgentUnder(ctx, a.Node, s.Wrap()) })
	}()
	select {
	case <-run.started:
	case <-s.Halted():
	}
	return run, nil
}

// Trace starts the agent, undisturbed but watched, and returns its watched calls in order, in the words of
// [Agent.Words], until it is ready and has come to rest. The agent that ran is killed before, and another one runs after.
func (a *Agent) Trace(ctx context.Context, calls ...string) (_ []supervisor.Call, err error) {
	if err := a.end(ctx); err != nil {
		return nil, err
	}
	run, err := a.Supervise(ctx, calls, nil)
	if err != nil {
		return nil, err
	}
	settled := run.Settle(ctx)
	trace, startErr := run.Calls(), run.Err()
	if err := errors.Join(settled, run.Close()); err != nil {
		return nil, err
	}
	if startErr != nil {
		return nil, fmt.Errorf("trace start of agent of node %s: %w", a.Node, startErr)
	}
	for i := range trace {
		if trace[i].Argument, err = a.Words(trace[i].Argument); err != nil {
			return nil, err
		}
	}
	return trace, a.start(ctx)
}

// Words replaces the places of the lab in a text by names that are the same in every lab: {pins}, {cgroup}, {source},
// {run}.
func (a *Agent) Words(text string) (string, error) {
	r, err := a.replacer()
	if err != nil {
		return "", err
	}
	return r.Replace(text), nil
}

func (a *Agent) replacer() (*strings.Replacer, error) {
	info, node, err := a.info()
	if err != nil {
		return nil, err
	}
	return strings.NewReplacer(node.PinDir, "{pins}", node.Cgroup, "{cgroup}", info.Manifests, "{source}",
		strings.TrimSuffix(info.Manifests, "/manifests"), "{run}"), nil
}

// translated gives a decider calls in the words of Words.
func (a *Agent) translated(decide supervisor.Decide) supervisor.Decide {
	r, err := a.replacer()
	return func(c supervisor.Call, when supervisor.When) supervisor.Action {
		if err == nil {
			c.Argument = r.Replace(c.Argument)
		}
		return decide(c, when)
	}
}
