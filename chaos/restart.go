// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/evenkeel/evenkeel/netsim"
	"github.com/evenkeel/evenkeel/netsim/flow"
	"github.com/evenkeel/evenkeel/netsim/flow/record"
)

// tries is how often a run is done that was void: it has shown nothing.
const tries = 5

// everyFlow is what is watched in the tables: a flow of every kind to both nodes, new connections, and probes that must
// be refused.
func everyFlow() []flow.Spec { return append(everyKind(), refused()...) }

// serveMesh starts the servers of newMeshLab.
func serveMesh(ctx SpecContext, r *run, lab *netsim.Lab) {
	GinkgoHelper()
	for _, pod := range []string{"near", "far", "catch-all"} {
		r.serve(ctx, lab.Pod(pod))
	}
}

// undisturbed watches flows while act does something to a lab, until that could be judged: each flow has to be intact,
// each frame within the budget, each attempt to end as it must, and the lab to have afterwards what it had before, as
// far as compare tells apart.
func undisturbed(ctx SpecContext, lab *netsim.Lab, what string, flows func() []flow.Spec, act func(*run)) *record.Report {
	GinkgoHelper()
	for range tries {
		r := newRun(what)
		serveMesh(ctx, r, lab)
		r.watch(ctx, lab.Pod("client"), &flow.Plan{Flows: flows()})
		before := take(lab)
		r.quiet(ctx, what)
		act(r)
		same(ctx, lab, before, steady)
		report := r.judge()
		r.stop()
		r.witness()
		unbroken(report)
		if !report.Void {
			passed(report)
			return report
		}
		r.Discarded = true
	}
	Fail("the machine is too busy: every run was void")
	return nil
}

// passed fails the spec if a run that could be judged was not as it must be, and notes its figures.
func passed(report *record.Report) {
	GinkgoHelper()
	Expect(report.Verdict).To(Equal(record.Passed), "%+v", stalled(report))
	figure("worst gap", report.WorstGap, "ms")
	figure("budget", report.Budget, "ms")
	figure("flows", float64(report.Flows.Intact), "")
}

// unbroken fails the spec if a flow is broken, or an attempt ended as it must not. On a machine that stood still an
// attempt may have run out of time by itself; but none passes by itself that must be refused.
func unbroken(report *record.Report) {
	GinkgoHelper()
	for _, d := range report.Details {
		if report.Void && d.Must == record.MustPass {
			continue
		}
		Expect(d.Verdict).NotTo(Equal(record.Broken), "%+v", d)
	}
}

// stalled are the flows that were too late.
func stalled(report *record.Report) (late []record.FlowVerdict) {
	for _, d := range report.Details {
		if d.Verdict != record.Intact {
			late = append(late, d)
		}
	}
	return late
}

// The agent is not in the path: whatever becomes of its process, no flow of any kind to either node notices, every new
// connection is made, and what must be refused is refused at every instant.
var _ = Describe("Restart table", Label("dataplane:evenkeel", "restart"), Ordered, ContinueOnFailure, func() {
	var lab *netsim.Lab
	BeforeAll(func(ctx SpecContext) {
		lab = newMeshLab(ctx, evenkeel())
		for _, node := range []string{"a", "b"} { // the agent that has made everything holds more than one that adopts it
			Expect(lab.RestartAgent(ctx, node)).To(Succeed())
		}
	})

	const limit = SpecTimeout(5 * time.Minute)
	// hit injects a fault at the agent of each node in turn, holds it for a while, and heals it.
	hit := func(name string, hold time.Duration) func(SpecContext) {
		return func(ctx SpecContext) {
			undisturbed(ctx, lab, name, everyFlow, func(r *run) {
				GinkgoHelper()
				for _, node := range []string{"a", "b"} {
					f := r.inject(ctx, lab, name+" agent/"+node)
					during(ctx, hold)
					f.heal(ctx)
					during(ctx, 500*time.Millisecond)
				}
			})
		}
	}
	// both injects a fault at the agents of both nodes at once.
	both := func(name string, hold time.Duration, parameters string) func(SpecContext) {
		return func(ctx SpecContext) {
			undisturbed(ctx, lab, name, everyFlow, func(r *run) {
				GinkgoHelper()
				var all []*injected
				for _, node := range []string{"a", "b"} {
					all = append(all, r.inject(ctx, lab, name+" agent/"+node+parameters))
				}
				during(ctx, hold)
				for _, f := range all {
					f.heal(ctx)
				}
				during(ctx, 500*time.Millisecond)
			})
		}
	}
	It("survives SIGTERM", Label("tier:pr", "fault:term"), limit, hit("term", time.Second))
	It("survives SIGKILL", Label("tier:smoke", "fault:kill"), limit, hit("kill", time.Second))
	It("survives SIGSTOP of both agents for 5 s", Label("tier:pr", "fault:stop"), limit, both("stop", 5*time.Second, ""))
	It("survives SIGSTOP of both agents for 30 s", Label("tier:nightly", "fault:stop"), limit, both("stop", 30*time.Second, ""))
	It("survives that both agents are frozen", Label("tier:pr", "fault:freeze"), limit, both("freeze", 2*time.Second, ""))
	It("survives the OOM killer", Label("tier:pr", "fault:out-of-memory"), limit, hit("out-of-memory", 500*time.Millisecond))
	It("survives a loop of 10 crashes", Label("tier:pr", "fault:crash-loop"), limit, both("crash-loop", 0, " count=10 seed=1"))
	It("survives a loop of 50 crashes", Label("tier:nightly", "fault:crash-loop"), limit, func(ctx SpecContext) {
		undisturbed(ctx, lab, "crash-loop", everyFlow, func(r *run) {
			GinkgoHelper()
			for _, node := range []string{"a", "b"} {
				spec := parseFault("crash-loop agent/" + node + " count=50")
				spec.Seed = seed()
				f, err := r.tryInject(ctx, environment(lab), spec)
				Expect(err).NotTo(HaveOccurred())
				f.heal(ctx)
			}
		})
	})
})
