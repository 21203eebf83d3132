// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/evenkeel/evenkeel/chaos/schedule"
	"github.com/evenkeel/evenkeel/netsim"
	"github.com/evenkeel/evenkeel/netsim/fault"
	"github.com/evenkeel/evenkeel/netsim/flow"
	"github.com/evenkeel/evenkeel/netsim/flow/record"
)

const (
	// convergence is how long it may take, once all is healed, until the agents say that all is well.
	convergence = 10 * time.Second
	// shrinkTime is how long a failing walk is cut down.
	shrinkTime = 4 * time.Minute
)

// restarts are the faults of the restart table, as rows.
func restarts() (rows []row) {
	for _, node := range []string{"a", "b"} {
		for _, what := range []string{"term agent/%s", "kill agent/%s", "stop agent/%s", "freeze agent/%s",
			"out-of-memory agent/%s", "crash-loop agent/%s count=3"} {
			rows = append(rows, row{fault: fmt.Sprintf(what, node)})
		}
	}
	return rows
}

// walkable are the faults that a walk draws from. Those that lose something are left out of a walk of which nothing may
// be lost.
func walkable(lossless bool) (rows []row) {
	for _, w := range append(restarts(), slices.Concat(tables["process"], tables["control-plane"], tables["bpf"],
		tables["topology"], tables["wire"])...) {
		if lossless && w.loses != nil {
			continue
		}
		rows = append(rows, w)
	}
	return rows
}

// walk goes along a schedule on a fresh lab: flows are watched while rounds of faults come and are healed. Whatever
// a fault of the schedule may take by itself, it may take here; all else holds. Afterwards the lab converges.
func walk(ctx SpecContext, lab *netsim.Lab, s schedule.Schedule) {
	GinkgoHelper()
	before := take(lab)
	r := newRun(s.String())
	r.Untimed = true
	serveMesh(ctx, r, lab)
	r.watch(ctx, lab.Pod("client"), &flow.Plan{Flows: everyFlow()})
	r.begin(ctx, "walk")
	for _, round := range s {
		var all []*injected
		for _, f := range round {
			i, err := r.tryInject(ctx, environment(lab), f)
			Expect(err).NotTo(HaveOccurred())
			all = append(all, i)
		}
		during(ctx, 500*time.Millisecond)
		for _, i := range inHealingOrder(round, all) {
			i.heal(ctx)
		}
	}
	healed := time.Now()
	for _, pod := range []string{"client", "near", "far", "extra"} {
		Expect(lab.Enrol(ctx, "default/"+pod)).To(Succeed())
	}
	for _, node := range []string{"a", "b"} {
		Eventually(ctx, func() ([]string, error) { return problems(ctx, lab, node) }).WithTimeout(convergence).
			WithPolling(polling).Should(BeEmpty(), "node %s, once all was healed", node)
	}
	figure("convergence", time.Since(healed).Seconds(), "s")
	report := r.finish()
	for _, d := range report.Details {
		if !lostBy(s, d) && !(report.Void && d.Must == record.MustPass) {
			Expect(d.Verdict).NotTo(Equal(record.Broken), "%+v", d)
		}
	}
	again := newRun("after " + s.String())
	again.Untimed = true
	serveMesh(ctx, again, lab)
	again.watch(ctx, lab.Pod("client"), &flow.Plan{Flows: everyFlow()})
	again.begin(ctx, "afterwards")
	during(ctx, 300*time.Millisecond)
	unbroken(again.finish())
	same(ctx, lab, before, byName)
}

// inHealingOrder has the last fault healed first, but for those of the source: an agent that is started again is not
// ready before it has read that.
func inHealingOrder(round []fault.Spec, all []*injected) (order []*injected) {
	for _, ofSource := range []bool{true, false} {
		for n, i := range slices.Backward(all) {
			if (round[n].Target == "source") == ofSource {
				order = append(order, i)
			}
		}
	}
	return order
}

// lostBy tells whether a fault of the schedule may take a flow.
func lostBy(s schedule.Schedule, d record.FlowVerdict) bool {
	for _, w := range walkable(false) {
		if w.loses == nil || !w.loses(d) {
			continue
		}
		for _, round := range s {
			if slices.ContainsFunc(round, func(f fault.Spec) bool { return f.String() == parseFault(w.fault).String() }) {
				return true
			}
		}
	}
	return false
}

// Faults as they come, up to three at once. The seed decides which; what fails is cut down, and printed as a command
// line that does the same again.
var _ = Describe("Random walk", Label("dataplane:evenkeel", "random-walk", "fault:random"), func() {
	const limit = SpecTimeout(15 * time.Minute)
	walked := func(ctx SpecContext, lab *netsim.Lab, s schedule.Schedule) {
		GinkgoHelper()
		evidence("schedule", s.String())
		failure := InterceptGomegaFailure(func() { walk(ctx, lab, s) })
		if failure == nil {
			return
		}
		end := time.Now().Add(shrinkTime)
		smallest, err := schedule.Shrink(s, func(s schedule.Schedule) (bool, error) {
			if time.Now().After(end) || ctx.Err() != nil {
				return false, schedule.ErrEnough
			}
			return InterceptGomegaFailure(func() { walk(ctx, newWalkLab(ctx), s) }) != nil, nil
		})
		Expect(err).NotTo(HaveOccurred())
		found.Repeat = fmt.Sprintf("evenkeel-chaos run --label random-walk --seed %d --schedule '%s'", seed(), smallest)
		Fail(fmt.Sprintf("%v\n\ncut down from %d faults to %d; to repeat it:\n  %s", failure, s.Size(), smallest.Size(),
			found.Repeat))
	}
	drawn := func(rounds int, lossless bool) func(SpecContext) {
		return func(ctx SpecContext) {
			lab := newWalkLab(ctx)
			var from []fault.Spec
			for _, w := range walkable(lossless) {
				from = append(from, parseFault(w.fault))
			}
			random := rand.New(rand.NewPCG(seed(), uint64(rounds)))
			walked(ctx, lab, schedule.Draw(random, rounds, from, environment(lab).Conflict))
		}
	}
	if config.Schedule != nil {
		It("of the schedule that was given", Label("tier:pr", "tier:nightly"), limit, func(ctx SpecContext) {
			walked(ctx, newWalkLab(ctx), config.Schedule)
		})
		return
	}
	It("of 3 rounds, of which nothing is lost", Label("tier:pr"), limit, drawn(3, true))
	It("of 12 rounds", Label("tier:nightly"), limit, drawn(12, false))
})

// newWalkLab is a lab whose agents have found what is there.
func newWalkLab(ctx SpecContext) *netsim.Lab {
	GinkgoHelper()
	lab := newMeshLab(ctx, evenkeel(), "{name: extra, node: b, enrol: true}")
	for _, node := range []string{"a", "b"} {
		Expect(lab.RestartAgent(ctx, node)).To(Succeed())
	}
	return lab
}
