// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/evenkeel/evenkeel/netsim"
	"github.com/evenkeel/evenkeel/netsim/fault"
	"github.com/evenkeel/evenkeel/netsim/fault/supervisor"
	"github.com/evenkeel/evenkeel/netsim/flow"
	"github.com/evenkeel/evenkeel/netsim/inventory"
)

// watchedWhile has flows watched while procedures are killed. How late frames are is not judged: watched calls take
// long, and the machine is busy with little else.
func watchedWhile(ctx SpecContext, lab *netsim.Lab, what string, flows []flow.Spec, act func(*run)) {
	GinkgoHelper()
	r := newRun(what)
	r.Untimed = true
	serveMesh(ctx, r, lab)
	r.watch(ctx, lab.Pod("client"), &flow.Plan{Flows: flows})
	r.begin(ctx, what)
	act(r)
	report := r.judge()
	r.stop()
	r.witness()
	unbroken(report)
	figure("worst gap", report.WorstGap, "ms")
	figure("flows", float64(report.Flows.Intact+report.Flows.Stalled), "")
}

// established are flows that go on without a data plane: new connections would find nobody who leads them to an
// endpoint, or refuses them.
func established() []flow.Spec {
	return slices.DeleteFunc(everyKind(), func(s flow.Spec) bool { return s.Kind == "storm" || s.Kind == "probe" })
}

// served are the services of a node and their endpoints, as its agent says the kernel has them, a line each.
func served(ctx SpecContext, lab *netsim.Lab, node string) ([]string, error) {
	var told struct {
		Endpoints []struct{ Service, Port, Protocol, Address, Level string }
	}
	if err := ask(ctx, lab, node, "/v1/endpoints", &told); err != nil {
		return nil, err
	}
	var lines []string
	for _, e := range told.Endpoints {
		lines = append(lines, strings.Join([]string{e.Service, e.Port, e.Protocol, e.Address, e.Level}, " "))
	}
	slices.Sort(lines)
	return lines, nil
}

// putManifest writes a file of the agents' source, or replaces it, at once.
func putManifest(lab *netsim.Lab, name, text string) {
	GinkgoHelper()
	next := filepath.Join(lab.Info().Manifests, "."+name)
	Expect(os.WriteFile(next, []byte(text), 0o644)).To(Succeed())
	Expect(os.Rename(next, filepath.Join(lab.Info().Manifests, name))).To(Succeed())
}

// Whatever is cut off, at any step, and once more while it recovers: no flow notices, and the next one ends where the
// uninterrupted one does.
var _ = Describe("Crash points", Label("dataplane:evenkeel", "crash", "fault:kill-at"), Ordered, ContinueOnFailure, func() {
	const node = "a"
	const limit = SpecTimeout(8 * time.Minute)
	var lab *netsim.Lab
	var extra *netsim.Pod
	BeforeAll(func(ctx SpecContext) {
		lab = newMeshLab(ctx, evenkeel(), "{name: extra, node: a}")
		extra = lab.Pod("extra")
		Expect(lab.RestartAgent(ctx, node)).To(Succeed())
	})

	words := func(text string) (string, error) { return supervisable(lab, node).Words(text) }
	nothing := func(SpecContext) {}

	// running makes sure that the agent runs.
	running := func(ctx SpecContext) {
		GinkgoHelper()
		if nodeInfo(lab, node).Agent.State != netsim.AgentRunning {
			Expect(lab.StartAgent(ctx, node)).To(Succeed())
		}
	}
	// asNow returns a check that the lab has what it has now, as far as compare tells apart, and serves what it serves.
	asNow := func(ctx SpecContext, compare func(inventory.Inventory) inventory.Inventory) func(SpecContext) {
		GinkgoHelper()
		had := take(lab)
		want, err := served(ctx, lab, node)
		Expect(err).NotTo(HaveOccurred())
		Expect(want).NotTo(BeEmpty())
		return func(ctx SpecContext) {
			GinkgoHelper()
			healthy(ctx, lab, node)
			Expect(served(ctx, lab, node)).To(Equal(want))
			same(ctx, lab, had, compare)
		}
	}
	// start performs the start of the agent.
	start := func(ctx SpecContext, decide supervisor.Decide) performed {
		GinkgoHelper()
		killAgent(ctx, lab, node)
		run, err := supervisable(lab, node).Supervise(ctx, nil, decide)
		Expect(err).NotTo(HaveOccurred())
		Expect(run.Settle(ctx)).To(Succeed()) // what it does in the background comes after it is ready
		return ended(run, nil)
	}
	// execute performs a command.
	execute := func(args ...string) func(SpecContext, supervisor.Decide) performed {
		return func(ctx SpecContext, decide supervisor.Decide) performed {
			GinkgoHelper()
			args := append(slices.Clone(args), "--pin-dir", nodeInfo(lab, node).PinDir)
			return ended(fault.Supervise(lab.Node(node).Command(ctx, evenkeel(), args...), faultProcess(), nil, decide))
		}
	}
	done := func(args ...string) func(SpecContext) {
		return func(ctx SpecContext) {
			GinkgoHelper()
			_, err := command(ctx, lab, node, args...)
			Expect(err).NotTo(HaveOccurred())
		}
	}

	It("of a start that adopts what is there", Label("tier:pr"), limit, func(ctx SpecContext) {
		watchedWhile(ctx, lab, "adopt", everyFlow(), func(r *run) {
			p := &procedure{name: "adopt", words: words, begin: nothing, perform: start, complete: running}
			check := asNow(ctx, steady)
			p.check = func(ctx SpecContext) { running(ctx); check(ctx) }
			p.killEverywhere(ctx, r, 0, 1)
		})
	})

	It("of applying a change", Label("tier:nightly"), limit, func(ctx SpecContext) {
		const name = "applied.yaml"
		DeferCleanup(func() { Expect(os.RemoveAll(filepath.Join(lab.Info().Manifests, name))).To(Succeed()) })
		// One service comes, one goes, one gets other endpoints.
		before := appliedService("goes", 60, "near") + appliedService("changes", 61, "near")
		after := appliedService("comes", 62, "far") + appliedService("changes", 61, "far")
		both := func(ctx SpecContext, text string) []string {
			GinkgoHelper()
			running(ctx)
			putManifest(lab, name, text)
			var lines []string
			Eventually(ctx, func() (string, error) {
				var err error
				lines, err = served(ctx, lab, node)
				return strings.Join(lines, "\n"), err
			}).WithTimeout(settling).WithPolling(polling).Should(SatisfyAll(
				Satisfy(func(s string) bool { return strings.Contains(s, "default/comes") == (text == after) }),
				Satisfy(func(s string) bool { return strings.Contains(s, "default/goes") == (text == before) })))
			healthy(ctx, lab, node)
			return lines
		}
		watchedWhile(ctx, lab, "apply", everyFlow(), func(r *run) {
			both(ctx, before)
			had, want := take(lab), both(ctx, after)
			check := func(ctx SpecContext) {
				GinkgoHelper()
				Expect(both(ctx, after)).To(Equal(want))
				same(ctx, lab, had, steady)
			}
			p := &procedure{name: "apply", words: words, recover: start, complete: running, check: check,
				begin: func(ctx SpecContext) { both(ctx, before) },
				perform: func(ctx SpecContext, decide supervisor.Decide) performed {
					GinkgoHelper()
					return performApply(ctx, lab, node, decide, func() { putManifest(lab, name, after) },
						func() bool {
							lines, err := served(ctx, lab, node)
							return err == nil && strings.Contains(strings.Join(lines, "\n"), "default/comes")
						})
				}}
			p.killEverywhere(ctx, r, 0, 1)
		})
	})

	// Enrolled and withdrawn is a pod beside the one whose flows are watched.
	enrol := []string{"enrol", "--netns", "", "--pod", "default/extra"}
	withdraw := []string{"withdraw", "--netns", "", "--pod", "default/extra"}
	BeforeAll(func() { enrol[2], withdraw[2] = extra.Netns, extra.Netns })

	It("of enrolling a pod", Label("tier:pr"), limit, func(ctx SpecContext) {
		watchedWhile(ctx, lab, "enrol", everyFlow(), func(r *run) {
			done(enrol...)(ctx)
			p := &procedure{name: "enrol", words: words, begin: done(withdraw...), perform: execute(enrol...),
				complete: done(enrol...), check: asNow(ctx, byName)}
			p.killEverywhere(ctx, r, 0, 1)
			done(withdraw...)(ctx)
		})
	})

	It("of withdrawing a pod", Label("tier:pr"), limit, func(ctx SpecContext) {
		watchedWhile(ctx, lab, "withdraw", everyFlow(), func(r *run) {
			p := &procedure{name: "withdraw", words: words, begin: done(enrol...), perform: execute(withdraw...),
				complete: done(withdraw...), check: asNow(ctx, steady)}
			p.killEverywhere(ctx, r, 0, 1)
		})
	})

	// Uninstalling and beginning from nothing have hundreds of steps: they are done in parts, each a spec.
	const parts = 8
	again := func(ctx SpecContext) {
		GinkgoHelper()
		running(ctx)
		for _, pod := range []string{"client", "near"} {
			Expect(lab.Enrol(ctx, "default/"+pod)).To(Succeed())
		}
	}
	uninstall := func(ctx SpecContext) {
		GinkgoHelper()
		killAgent(ctx, lab, node)
		done("uninstall", "--yes")(ctx)
	}
	// What is taken apart must not be reached any more, by a packet neither: a frame a millisecond meets what 10 ms miss.
	It("of none, while it is uninstalled and begun again 10 times: not a datagram is lost", Label("tier:pr"), limit,
		func(ctx SpecContext) {
			again(ctx)
			var flows []flow.Spec
			for _, s := range established() {
				if s.Kind == "udp" {
					s.Period = flow.Duration(time.Millisecond)
					flows = append(flows, s)
				}
			}
			watchedWhile(ctx, lab, "uninstall", flows, func(*run) {
				for range 10 {
					uninstall(ctx)
					again(ctx)
				}
			})
		})
	for part := range parts {
		It(fmt.Sprintf("of uninstalling, part %d of %d", part+1, parts), Label("tier:nightly"), limit, func(ctx SpecContext) {
			again(ctx)
			watchedWhile(ctx, lab, "uninstall", established(), func(r *run) {
				places, had := lab.Places(), take(lab)
				pins := func(i inventory.Inventory) (of inventory.Inventory) {
					for _, o := range i.Only(inventory.Pin) {
						if strings.HasPrefix(o.Name, "/"+node) {
							of = append(of, o)
						}
					}
					return of
				}
				p := &procedure{name: "uninstall", words: words, perform: execute("uninstall", "--yes"),
					begin:    func(ctx SpecContext) { again(ctx); killAgent(ctx, lab, node) },
					complete: done("uninstall", "--yes"),
					check: func(ctx SpecContext) {
						Expect(pins(take(lab))).To(BeEmpty())
						gone(ctx, places, pins(had))
					}}
				p.killEverywhere(ctx, r, part, parts)
				again(ctx)
			})
		})
		It(fmt.Sprintf("of a start that begins from nothing, part %d of %d", part+1, parts), Label("tier:nightly"), limit,
			func(ctx SpecContext) {
				again(ctx)
				watchedWhile(ctx, lab, "begin", established(), func(r *run) {
					p := &procedure{name: "begin", words: words, begin: uninstall, perform: start, complete: running}
					check := asNow(ctx, byName)
					p.check = func(ctx SpecContext) { again(ctx); check(ctx) }
					p.killEverywhere(ctx, r, part, parts)
				})
			})
	}
})

// byName is steady for a data plane that was made anew: other objects of the same names. What an agent holds that has
// made it is not what one holds that has found it.
func byName(i inventory.Inventory) inventory.Inventory {
	return slices.DeleteFunc(steady(i).ByName(), func(o inventory.Object) bool {
		return o.Kind == inventory.Descriptor || o.Held
	})
}

// appliedService is a Service with one port of TCP.
func appliedService(name string, number int, app string) string {
	return fmt.Sprintf("---\napiVersion: v1\nkind: Service\nmetadata: {name: %s, namespace: default}\nspec:\n  clusterIP: %s\n"+
		"  selector: {app: %s}\n  ports: [{name: stream, port: 7000, protocol: TCP}]\n", name, serviceIPv4(number), app)
}

// performApply starts an agent under supervision and has it apply a change; only calls of the latter are decided on.
func performApply(ctx SpecContext, lab *netsim.Lab, node string, decide supervisor.Decide, change func(),
	applied func() bool) performed {
	GinkgoHelper()
	killAgent(ctx, lab, node)
	var base atomic.Int64 // calls before the change, -1 until it comes
	base.Store(-1)
	var watched supervisor.Decide
	if decide != nil {
		watched = func(c supervisor.Call, when supervisor.When) supervisor.Action {
			first := base.Load()
			if first < 0 {
				return supervisor.Go()
			}
			c.Number -= int(first)
			return decide(c, when)
		}
	}
	run, err := supervisable(lab, node).Supervise(ctx, nil, watched)
	Expect(err).NotTo(HaveOccurred())
	Expect(run.Settle(ctx)).To(Succeed())
	Expect(run.Err()).NotTo(HaveOccurred())
	first := len(run.Calls())
	base.Store(int64(first))
	change()
	Eventually(ctx, func() bool {
		select {
		case <-run.Done():
			return true
		default:
			return applied()
		}
	}).WithTimeout(settling).WithPolling(polling).Should(BeTrue())
	Expect(run.Settle(ctx)).To(Succeed())
	p := ended(run, nil)
	p.calls = p.calls[first:]
	return p
}
