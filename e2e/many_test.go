// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/evenkeel/evenkeel/e2e/client/report"
)

// windows are many connections that ask in turn, and how that went from one word to the next.
type windows struct{ *running[report.Window] }

// keepMany makes connections from a pod and returns when all are there.
func keepMany(ctx SpecContext, l *lab, pod, to string, connections int, interval time.Duration) windows {
	GinkgoHelper()
	w := windows{start[report.Window](ctx, l.pod(pod), "many", fmt.Sprint("-connections=", connections),
		fmt.Sprint("-interval=", interval), to)}
	Eventually(ctx, w.seen).WithTimeout(30*time.Second).ShouldNot(BeEmpty(), func() string {
		return fmt.Sprintf("%d connections are made; stderr: %s", connections, w.stderr.Contents())
	})
	return w
}

// begin begins a window, and returns the one that it ends.
func (w windows) begin(ctx SpecContext, name string) report.Window {
	GinkgoHelper()
	before := len(w.seen())
	w.say(name)
	Eventually(ctx, func() int { return len(w.seen()) }).Should(Equal(before + 1))
	return w.seen()[before]
}

// round lets every connection ask once more.
func round(ctx SpecContext, interval time.Duration) {
	GinkgoHelper()
	select {
	case <-time.After(interval + interval/10):
	case <-ctx.Done():
		Fail("the spec ran out of time")
	}
}

// Upgrades by commands and by agents that are killed, between this build and one whose programs know no refusal.
var _ = Describe("Upgrade after upgrade", Serial, func() {
	const node, to = "left", "10.96.0.10:7"
	// newPair is a lab without an agent on node, and the same with commands and agents of the other build.
	newPair := func(ctx SpecContext) (this, other *lab) {
		GinkgoHelper()
		this = newLab(ctx, twoNodes+`
  - {name: client, node: left, enrol: true}
  - {name: web, node: right, count: 4, labels: {app: web}, serve: ["http :8080", "tcp :9000", "udp :9001"]}
`)
		this.put("web", documents(webService("web", "10.96.0.10", "fd00:96::10")))
		this.expectPorts(ctx, node, 6)
		expectServed(ctx, this.pod("client"), to)
		Expect(this.stopAgent(ctx, node, syscall.SIGTERM)).To(Succeed())
		return this, &lab{this.Lab, this.name, built.controls["miss_passes"]}
	}
	upgrade := func(ctx SpecContext, l *lab, args ...string) {
		GinkgoHelper()
		got := l.evenkeel(ctx, node, append([]string{"upgrade"}, args...)...)
		Expect(got.code).To(BeZero(), "%q %+v", args, got)
	}
	// killed starts an agent, which upgrades by itself, and kills it at an instant of that.
	killed := func(ctx SpecContext, l *lab, random *rand.Rand) {
		GinkgoHelper()
		agent := l.agentCommand(ctx, node)
		Expect(agent.Start()).To(Succeed())
		round(ctx, time.Duration(random.Int64N(int64(700*time.Millisecond))))
		Expect(agent.Process.Kill()).To(Succeed())
		Expect(agent.Wait()).NotTo(Succeed())
	}
	// notices keeps connections over goes of upgrades, a rollback and an agent that is killed.
	notices := func(ctx SpecContext, connections, goes int, interval time.Duration, meanwhile func(*lab)) {
		GinkgoHelper()
		random := rand.New(rand.NewPCG(uint64(GinkgoRandomSeed()), 0))
		this, other := newPair(ctx)
		all := keepMany(ctx, this, "client", to, connections, interval)
		all.begin(ctx, "upgrades")
		for range goes {
			upgrade(ctx, other, "apply")
			killed(ctx, this, random)
			upgrade(ctx, this, "apply")
			upgrade(ctx, other, "apply")
			upgrade(ctx, this, "rollback")
			meanwhile(this)
		}
		var last report.Window
		for _, w := range all.stop() {
			if w.Event != "window" {
				continue
			}
			AddReportEntry(w.Name, fmt.Sprintf("%+v", w))
			Expect(w.Failed).To(BeZero(), "nothing was lost, reset or said twice: %+v", w)
			last = w
		}
		Expect(last.Requests).To(Equal(connections), "each connection asks in the end: %+v", last)
	}
	nothing := func(*lab) {}

	It("is noticed by none of 10,000 connections", func(ctx SpecContext) {
		notices(ctx, 10_000, 1, 10*time.Second, nothing)
	}, SpecTimeout(time.Minute))

	It("is noticed by none of 10,000 connections, a hundred times", Label("tier:nightly"), func(ctx SpecContext) {
		notices(ctx, 10_000, 34, 5*time.Second, nothing)
	}, SpecTimeout(8*time.Minute))

	It("is caught where a server dies meanwhile", Label("control"), func(ctx SpecContext) {
		failures := InterceptGomegaFailures(func() {
			notices(ctx, 100, 1, 200*time.Millisecond, func(l *lab) {
				kill := filepath.Join(l.pod("web-0").Cgroup, "cgroup.kill")
				Expect(os.WriteFile(kill, []byte("1"), 0)).To(Succeed())
			})
		})
		Expect(failures).To(ContainElement(ContainSubstring("nothing was lost")), "the check cannot fail")
	}, SpecTimeout(time.Minute))

	// Where a release is loaded and not served the processors have as much to do. The last arm changes what serves, and
	// does nothing else most of the time.
	It("answers as soon as without one", Label("tier:nightly"), func(ctx SpecContext) {
		const rounds, interval = 12, 250 * time.Millisecond
		this, other := newPair(ctx)
		all := keepMany(ctx, this, "client", to, 1000, interval)
		serves, next := this, other
		arms := []struct {
			name string
			do   func()
		}{
			{"idle", func() { round(ctx, time.Second) }},
			{"loading", func() {
				got := runIn(ctx, this.Node(node), nil, next.binary, "upgrade", "verify", "--pin-dir", this.pins(node))
				Expect(got.stdout).To(ContainSubstring("in order"), "%+v", got)
			}},
			{"upgrade", func() {
				upgrade(ctx, next, "apply")
				serves, next = next, serves
			}},
			{"exercise", func() { upgrade(ctx, serves, "exercise", "--flips=1000", "--interval=1ms") }},
		}
		for i := range rounds {
			for j := range arms {
				upgrade(ctx, serves, "retire") // an exercise is of one generation and one more
				arm := arms[(i+j)%len(arms)]
				all.begin(ctx, arm.name)
				arm.do()
				w := all.begin(ctx, "between")
				Expect(w.Failed).To(BeZero(), "%+v", w)
			}
		}
		total := map[string]report.Window{}
		for _, w := range all.stop() {
			if w.Event == "total" {
				total[w.Name] = w
				AddReportEntry(w.Name, fmt.Sprintf("%+v", w))
			}
		}
		for _, arm := range arms {
			Expect(total[arm.name].Requests).To(BeNumerically(">", 5_000), arm.name)
		}
	}, SpecTimeout(5*time.Minute))
})
