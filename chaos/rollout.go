// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/evenkeel/evenkeel/engine/manifest"
	"github.com/evenkeel/evenkeel/netsim"
	"github.com/evenkeel/evenkeel/netsim/fault"
	"github.com/evenkeel/evenkeel/netsim/flow"
	"github.com/evenkeel/evenkeel/netsim/flow/record"
)

// The step from one release to another on somebody's own topology: whatever his pods say to his services goes on, there
// and back, though agents are killed on the way.
var _ = Describe("Rollout", Label("dataplane:evenkeel", "rollout"), Ordered, func() {
	o := config.Rollout
	if o == nil { // there is nothing to step between
		return
	}
	const limit = SpecTimeout(10 * time.Minute)
	const crashes = 5
	var lab *netsim.Lab
	var plan *rolloutPlan
	var nodes []string
	BeforeAll(func(ctx SpecContext) {
		topology := *o.Topology
		topology.Name = labName()
		topology.Pods = slices.Clone(topology.Pods)
		for i := range topology.Pods {
			topology.Pods[i].Serve, topology.Pods[i].Command = nil, nil
		}
		lab = upLab(ctx, o.From, &topology)
		info := lab.Info()
		documents, _, err := manifest.ReadPath(info.Manifests)
		Expect(err).NotTo(HaveOccurred())
		plan, err = planRollout(info, documents)
		Expect(err).NotTo(HaveOccurred(), "%s and its manifests", topology.File)
		for _, n := range info.Nodes {
			nodes = append(nodes, n.Name)
		}
		for node := range plan.catchers {
			var prefixes []string
			for _, a := range plan.addresses {
				prefixes = append(prefixes, fmt.Sprintf("%v/%d", a, a.BitLen()))
			}
			takeAddresses(lab.Node(node), prefixes...)
		}
	})
	AfterEach(func() {
		for _, node := range nodes {
			if CurrentSpecReport().Failed() {
				evidence("agent of node "+node, lastLines(nodeInfo(lab, node).Agent.Log, 20))
			}
		}
	})

	// swap has the agent of a node replaced by that of a release, as a daemon set does.
	swap := func(ctx SpecContext, node, release string) {
		GinkgoHelper()
		lab.UseAgent(release)
		Expect(lab.RestartAgent(ctx, node)).To(Succeed())
	}
	// serves waits until all nodes run a release: the process, and the programs.
	serves := func(ctx SpecContext, release string) {
		GinkgoHelper()
		want, err := os.Stat(release)
		Expect(err).NotTo(HaveOccurred())
		for _, node := range nodes {
			healthy(ctx, lab, node)
			runs, err := os.Stat(fmt.Sprintf("/proc/%d/exe", nodeInfo(lab, node).Agent.PID))
			Expect(err).NotTo(HaveOccurred())
			Expect(os.SameFile(want, runs)).To(BeTrue(), "the agent of node %s is another program than %s", node, release)
			var status struct{ Differs bool }
			Expect(ask(ctx, lab, node, "/v1/status", &status)).To(Succeed())
			Expect(status.Differs).To(BeFalse(), "node %s still serves the programs of another release", node)
		}
	}
	// watched has all flows watched while act is done, from nodes of one release on, until that could be judged.
	watched := func(ctx SpecContext, what, from, to string, act func(*run)) {
		GinkgoHelper()
		for _, note := range plan.notes {
			evidence("note", note)
		}
		for range tries {
			lab.UseAgent(from)
			for _, node := range nodes {
				if runs, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", nodeInfo(lab, node).Agent.PID)); err != nil || runs != from {
					swap(ctx, node, from)
				}
			}
			serves(ctx, from)
			r := newRun(what)
			for _, pod := range slices.Sorted(maps.Keys(plan.servers)) {
				r.serveAt(ctx, lab.Pod(pod), plan.servers[pod])
			}
			for _, node := range slices.Sorted(maps.Keys(plan.catchers)) {
				r.serveAt(ctx, lab.Node(node), plan.catchers[node])
			}
			for _, pod := range slices.Sorted(maps.Keys(plan.clients)) {
				r.watch(ctx, lab.Pod(pod), &flow.Plan{Flows: plan.clients[pod]})
			}
			r.quiet(ctx, what)
			for i := range r.Phases {
				r.Phases[i].Limit = record.LimitUpgrade
			}
			r.mark(record.Now(), record.Phase{Name: what, Limit: record.LimitUpgrade})
			act(r)
			serves(ctx, to)
			during(ctx, 500*time.Millisecond)
			report := r.judge()
			r.stop()
			if len(r.Faults) > 0 {
				r.witness()
			}
			unbroken(report)
			if !report.Void {
				passed(report)
				return
			}
			r.Discarded = true
		}
		Fail("the machine is too busy: every run was void")
	}
	// step goes from one release to another, a node at a time.
	step := func(ctx SpecContext, what, from, to string) {
		watched(ctx, what, from, to, func(*run) {
			GinkgoHelper()
			for _, node := range nodes {
				swap(ctx, node, to)
				during(ctx, 500*time.Millisecond)
			}
		})
	}
	// crashing is step while the agents of the next release are killed at any instant of their start.
	crashing := func(ctx SpecContext, what, from, to string) {
		watched(ctx, what, from, to, func(r *run) {
			GinkgoHelper()
			lab.UseAgent(to)
			for i, node := range nodes {
				spec := parseFault(fmt.Sprintf("crash-loop agent/%s count=%d", node, crashes))
				spec.Seed = seed() + uint64(i)
				f, err := r.tryInject(ctx, fault.Environment{Lab: lab, Binary: to, Self: faultProcess()}, spec)
				Expect(err).NotTo(HaveOccurred())
				f.heal(ctx)
				during(ctx, 500*time.Millisecond)
			}
		})
	}

	It("serves before it", Label("tier:smoke"), limit, func(ctx SpecContext) {
		watched(ctx, "before", o.From, o.From, func(*run) { during(ctx, time.Second) })
	})
	It("goes there node by node", Label("tier:smoke"), limit, func(ctx SpecContext) {
		step(ctx, "there", o.From, o.To)
	})
	It("survives that the new agents are killed", Label("tier:smoke"), limit, func(ctx SpecContext) {
		watched(ctx, "kill", o.To, o.To, func(r *run) {
			GinkgoHelper()
			for _, node := range nodes {
				f, err := r.tryInject(ctx, fault.Environment{Lab: lab, Binary: o.To, Self: faultProcess()},
					parseFault("kill agent/"+node))
				Expect(err).NotTo(HaveOccurred())
				during(ctx, time.Second)
				f.heal(ctx)
			}
		})
	})
	It("comes back node by node", Label("tier:smoke"), limit, func(ctx SpecContext) {
		step(ctx, "back", o.To, o.From)
	})
	It(fmt.Sprintf("goes there though each agent crashes %d times", crashes), Label("tier:pr"), limit, func(ctx SpecContext) {
		crashing(ctx, "there, crashing", o.From, o.To)
	})
	It(fmt.Sprintf("comes back though each agent crashes %d times", crashes), Label("tier:pr"), limit, func(ctx SpecContext) {
		crashing(ctx, "back, crashing", o.To, o.From)
	})
})

// serveAt starts a server on ports in a place.
func (r *run) serveAt(ctx SpecContext, where flow.Place, on []flow.Port) {
	GinkgoHelper()
	s, err := flow.StartServer(context.WithoutCancel(ctx), where, instrument(), r.file("server"), on...)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(s.Stop)
	r.servers = append(r.servers, s)
}

// lastLines is the end of a file.
func lastLines(path string, n int) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
