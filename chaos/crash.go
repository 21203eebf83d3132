// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/evenkeel/evenkeel/chaos/result"
	"github.com/evenkeel/evenkeel/netsim"
	"github.com/evenkeel/evenkeel/netsim/fault"
	"github.com/evenkeel/evenkeel/netsim/fault/supervisor"
	"github.com/evenkeel/evenkeel/netsim/flow/record"
)

// procedure is something that leaves side effects one after the other, and that can be done again after it was cut off.
type procedure struct {
	name string
	// begin brings the lab to where the procedure begins. It is called before each time.
	begin func(SpecContext)
	// perform does it under supervision, and returns when it has ended, or was ended, and its process is gone. Decide is
	// asked only about its own calls, numbered from 1.
	perform func(SpecContext, supervisor.Decide) performed
	// recover is what follows when it was killed, itself under supervision; nil if that is perform.
	recover func(SpecContext, supervisor.Decide) performed
	// complete does it, or what is left of it, as an operator would, undisturbed.
	complete func(SpecContext)
	// check fails the spec if the lab is not as it is after an uninterrupted procedure.
	check func(SpecContext)
	// words makes texts of calls the same in every lab.
	words func(string) (string, error)
}

// performed is what a procedure did: its side effects, and where it was killed, nil if it was not.
type performed struct {
	calls []supervisor.Call
	acted *supervisor.Moment
}

// steps returns the moments before and after each side effect of an uninterrupted procedure, in order, by text.
func (p *procedure) steps(ctx SpecContext) []supervisor.Point {
	GinkgoHelper()
	p.begin(ctx)
	calls := p.perform(ctx, nil).calls
	p.check(ctx)
	for i := range calls {
		var err error
		calls[i].Argument, err = p.words(calls[i].Argument)
		Expect(err).NotTo(HaveOccurred())
	}
	Expect(calls).NotTo(BeEmpty(), "%s has no side effects: it was not watched", p.name)
	return supervisor.Points(calls)
}

// killEverywhere kills a procedure at every step, and then its repetition at a step that is drawn, and makes sure that
// the next one completes it. A part of the steps is all of those whose number leaves that rest when divided by of.
// Between two kills nothing of the traffic is broken: that is for the caller to judge.
func (p *procedure) killEverywhere(ctx SpecContext, r *run, part, of int) {
	GinkgoHelper()
	all := p.steps(ctx)
	random := rand.New(rand.NewPCG(seed(), uint64(len(all))))
	want, killed := map[string]bool{}, map[string]bool{}
	again := 0
	f := &result.Fault{Spec: "kill-at " + p.name, Name: "kill-at", Group: "process", Start: record.Now()}
	r.Faults = append(r.Faults, f)
	for n, point := range all {
		if n%of != part {
			continue
		}
		want[point.String()] = true
		p.begin(ctx)
		if m := p.killAt(ctx, p.perform, supervisor.At(point, supervisor.Kill())); m != nil {
			killed[p.point(m, point.Occurrence)] = true
			f.Active++
		}
		// It recovers, and is killed in that, too. A recovery may have less to do than that.
		recover := p.perform
		if p.recover != nil {
			recover = p.recover
		}
		second := supervisor.AtNumber(1+random.IntN(len(all)/2), supervisor.When(random.IntN(2)), supervisor.Kill())
		if p.killAt(ctx, recover, second) != nil {
			again++
			f.Active++
		}
		p.complete(ctx)
		p.check(ctx)
	}
	f.Injected, f.Heal, f.End = record.Now(), record.Now(), record.Now()
	missed := slices.DeleteFunc(slices.Sorted(maps.Keys(want)), func(s string) bool { return killed[s] })
	Expect(missed).To(BeEmpty(), "steps of the uninterrupted %s at which it was not killed", p.name)
	Expect(killed).To(HaveLen(len(want)), "it was killed at other steps than those that were traced")
	figure("steps traced", float64(len(all)), "")
	figure("steps at which it was killed", float64(len(killed)), "")
	figure("killed again in the recovery", float64(again), "")
}

// killAt performs something, to be killed where decide says, and returns where it was, nil if it never came there.
func (p *procedure) killAt(ctx SpecContext, perform func(SpecContext, supervisor.Decide) performed,
	decide supervisor.Decide) *supervisor.Moment {
	GinkgoHelper()
	return perform(ctx, func(c supervisor.Call, when supervisor.When) supervisor.Action {
		if argument, err := p.words(c.Argument); err == nil {
			c.Argument = argument
		}
		return decide(c, when)
	}).acted
}

// point names a moment as the points of a trace are named.
func (p *procedure) point(m *supervisor.Moment, occurrence int) string {
	GinkgoHelper()
	argument, err := p.words(m.Call.Argument)
	Expect(err).NotTo(HaveOccurred())
	m.Call.Argument = argument
	return supervisor.Point{Call: m.Call.String(), Occurrence: occurrence, When: m.When}.String()
}

// ended closes a run: its process is gone then.
func ended(run *fault.Run, err error) performed {
	GinkgoHelper()
	Expect(err).NotTo(HaveOccurred())
	Expect(run.Close()).To(Succeed())
	return performed{run.Calls(), run.Acted()}
}

// supervisable is the agent of a node, to be started under supervision.
func supervisable(lab *netsim.Lab, node string) *fault.Agent {
	return fault.NewAgent(lab, node, evenkeel(), faultProcess())
}

// killAgent ends the agent of a node, if one runs.
func killAgent(ctx SpecContext, lab *netsim.Lab, node string) {
	GinkgoHelper()
	if nodeInfo(lab, node).Agent.State == netsim.AgentRunning {
		Expect(lab.KillAgent(ctx, node, syscall.SIGKILL)).To(Succeed())
		_ = lab.WaitAgent(ctx, node) // that it was killed
	}
}

// nodeInfo is what the lab says of a node.
func nodeInfo(lab *netsim.Lab, node string) netsim.NodeInfo {
	GinkgoHelper()
	for _, n := range lab.Info().Nodes {
		if n.Name == node {
			return n
		}
	}
	Fail("there is no node " + node)
	return netsim.NodeInfo{}
}

// command runs evenkeel on a node, with the flag that leads it to the node's state, and returns what it prints. The
// error has what it says on standard error.
func command(ctx SpecContext, lab *netsim.Lab, node string, args ...string) (string, error) {
	GinkgoHelper()
	args = append(args, "--pin-dir", nodeInfo(lab, node).PinDir)
	cmd := lab.Node(node).Command(ctx, evenkeel(), args...)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s%s", args[0], err, said.String(), out)
	}
	return string(out), err
}

// ask has the agent of a node answer over its socket: a command for each question would leave little of the machine.
func ask(ctx SpecContext, lab *netsim.Lab, node, path string, answer any) error {
	GinkgoHelper()
	socket := nodeInfo(lab, node).Agent.Admin
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent"+path, nil)
	Expect(err).NotTo(HaveOccurred())
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(answer); err != nil {
		return fmt.Errorf("GET %s: %w", path, err)
	}
	return nil
}

// healthy waits until the agent of a node says that all is well.
func healthy(ctx SpecContext, lab *netsim.Lab, node string) {
	GinkgoHelper()
	Eventually(ctx, func() ([]string, error) { return problems(ctx, lab, node) }).WithTimeout(settling).
		WithPolling(polling).Should(BeEmpty())
}

// problems are what the agent of a node says is wrong.
func problems(ctx SpecContext, lab *netsim.Lab, node string) ([]string, error) {
	GinkgoHelper()
	var status struct {
		Healthy  bool
		Problems []string
	}
	err := ask(ctx, lab, node, "/v1/status", &status)
	if err == nil && status.Healthy != (len(status.Problems) == 0) {
		err = fmt.Errorf("healthy is %v, and there are problems: %q", status.Healthy, status.Problems)
	}
	return status.Problems, err
}
