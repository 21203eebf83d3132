// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/evenkeel/evenkeel/chaos/result"
	"github.com/evenkeel/evenkeel/netsim"
	"github.com/evenkeel/evenkeel/netsim/flow"
	"github.com/evenkeel/evenkeel/netsim/flow/record"
	"github.com/evenkeel/evenkeel/netsim/flow/wire"
)

// beforeDrain is short beside the 5 s for which proxies let connections go on after SIGTERM.
const beforeDrain = 300 * time.Millisecond

// peerPatience is how long the last answers may take: a machine that others use starves a proxy of the processor for
// seconds, which is not what breaks its connections.
const peerPatience = flow.Duration(20 * time.Second)

// newPeerLab is two nodes with a data plane of any kind, and pods for flow servers.
func newPeerLab(ctx SpecContext, dataplane netsim.Dataplane) *netsim.Lab {
	GinkgoHelper()
	return newLab(ctx, "\n  dataplane: "+string(dataplane)+twoNodes+"\n"+flowService("far", farService, "far", wire.Protocols())+flowService("near", nearService, "near", wire.Protocols()))
}

const (
	sameNode, crossNode = "same node", "cross node"
	newConnections      = "new connections"
)

// peerPeriod is the shortest period of a flow here: at the usual 10 ms a proxy falls behind on a small machine, until
// flows that nothing was done to are not answered in time.
const peerPeriod = 50 * time.Millisecond

// peerFlows are a flow of every kind to the servers of both nodes, and probes that must pass. UDP goes to pods: a proxy
// has no part in it, and leads no service address anywhere.
func peerFlows(lab *netsim.Lab) []flow.Spec {
	var flows []flow.Spec
	for _, server := range []struct {
		place, pod string
		service    int
	}{{sameNode, "near", nearService}, {crossNode, "far", farService}} {
		tcp := 0
		for _, k := range flow.Kinds() {
			s := flow.Spec{Name: k.Name + ", " + server.place, Kind: k.Name, Period: flow.Duration(max(k.Period, peerPeriod))}
			switch {
			case k.Name == "storm":
				continue // handshakes of a proxy would leave nothing of the machine for the others
			case k.Name == "probe":
				s.Name, s.Must = newConnections+", "+server.place, record.MustPass
				s.Period = 4 * flow.Duration(peerPeriod)
				s.To = k.Address(serviceIPv4(server.service))
			case k.Protocol.Network == "udp":
				s.To = k.Address(address(lab, server.pod))
			default:
				to := []func(int) netip.Addr{serviceIPv4, serviceIPv6}[tcp%2]
				s.To = k.Address(to(server.service))
				tcp++
			}
			flows = append(flows, s)
		}
	}
	return flows
}

// broken is what a fault breaks: the TCP flows of a place, or of all places; UDP never.
type broken struct{ places []string }

func (b broken) flow(d record.FlowVerdict) bool {
	if d.Kind == "udp" || d.Kind == "probe" {
		return false
	}
	for _, place := range b.places {
		if strings.HasSuffix(d.Name, place) {
			return true
		}
	}
	return false
}

// What a process that holds connections takes with it: the same flows and the same faults, for a proxy and for the data
// plane in the kernel. The instrument shows the difference, so it could show one.
var _ = Describe("Negative control", Label("negative"), func() {
	const limit = SpecTimeout(2 * time.Minute)
	both := []string{sameNode, crossNode}

	// watched runs flows, does something to agents, and returns what became of the flows.
	watched := func(ctx SpecContext, lab *netsim.Lab, dataplane netsim.Dataplane, what string,
		act func(*run)) *record.Report {
		GinkgoHelper()
		r := newRun(what)
		r.Dataplane, r.Control = string(dataplane), dataplane != netsim.Evenkeel
		r.serve(ctx, lab.Pod("near"))
		r.serve(ctx, lab.Pod("far"))
		r.watch(ctx, lab.Pod("client"), &flow.Plan{Flows: peerFlows(lab), Drain: peerPatience})
		if r.Control {
			// What is broken is broken on any machine; a proxy would not get within a budget on a small one.
			r.mark(record.Now(), record.Phase{Name: "without a fault", FaultFree: true})
			during(ctx, time.Second)
			r.flush()
			r.mark(record.Now(), record.Phase{Name: what})
		} else {
			r.quiet(ctx, what)
		}
		act(r)
		report := r.judge()
		// Only what broke counts here; gaps of the data plane in the kernel are the restart table's.
		r.Discarded = report.Void && !r.Control
		return report
	}

	// expect checks that exactly the flows of b are broken; on a machine that was too busy to tell a stall of its own
	// from one of the data plane, that the others are not broken.
	expect := func(report *record.Report, b broken) {
		GinkgoHelper()
		want, all := 0, 0
		for _, d := range report.Details {
			if d.Kind == "probe" {
				continue
			}
			all++
			switch {
			case b.flow(d):
				want++
				Expect(d.Verdict).To(Equal(record.Broken), "%+v", d)
			case d.Kind == "udp" && !report.Void:
				Expect(d.Verdict).To(Equal(record.Intact), "%+v", d)
			default:
				Expect(d.Verdict).NotTo(Equal(record.Broken), "%+v", d)
			}
		}
		Expect(report.Flows.Broken).To(Equal(want))
		figure("flows broken", float64(report.Flows.Broken), "")
		figure("flows in all", float64(all), "")
	}

	// refused tells how many attempts to connect went wrong.
	refused := func(report *record.Report) (wrong uint64) {
		for _, d := range report.Details {
			if d.Kind == "probe" {
				wrong += d.Wrong
			}
		}
		return wrong
	}

	kill := func(dataplane netsim.Dataplane, node string) func(SpecContext) {
		return func(ctx SpecContext) {
			needZtunnel(dataplane)
			lab := newPeerLab(ctx, dataplane)
			report := watched(ctx, lab, dataplane, "kill agent/"+node, func(r *run) {
				GinkgoHelper()
				f := &result.Fault{Spec: "kill agent/" + node, Name: "kill", Group: "process", Start: record.Now()}
				r.Faults = append(r.Faults, f)
				Expect(lab.KillAgent(ctx, node, syscall.SIGKILL)).To(Succeed())
				err := lab.WaitAgent(ctx, node)
				exit := new(exec.ExitError)
				Expect(errors.As(err, &exit)).To(BeTrue(), "it was killed: %v", err)
				f.Active, f.Injected = 1, record.Now()
				during(ctx, time.Second)
				f.Heal = record.Now()
				Expect(lab.StartAgent(ctx, node)).To(Succeed())
				f.End = record.Now()
				during(ctx, time.Second)
			})
			if dataplane == netsim.Evenkeel {
				expect(report, broken{})
				Expect(refused(report)).To(BeZero())
				return
			}
			places := both
			if node == "b" {
				places = []string{crossNode}
			}
			expect(report, broken{places})
			Expect(refused(report)).To(BeNumerically(">", 0), "new connections while nobody holds them")
			// It serves again, by the servers that are there.
			again := newRun("after the kill")
			again.Dataplane, again.Control = string(dataplane), true
			plan := &flow.Plan{Drain: peerPatience}
			for place, service := range map[string]int{sameNode: nearService, crossNode: farService} {
				plan.Flows = append(plan.Flows, flow.Spec{Name: "trickle, " + place, Kind: "trickle",
					To: netip.AddrPortFrom(serviceIPv4(service), uint16(wire.Stream.Port))})
			}
			again.watch(ctx, lab.Pod("client"), plan)
			again.mark(record.Now(), record.Phase{Name: "served again", FaultFree: true})
			during(ctx, time.Second)
			report = again.judge()
			Expect(report.Flows.Broken).To(BeZero(), "%+v", report)
		}
	}

	term := func(dataplane netsim.Dataplane) func(SpecContext) {
		return func(ctx SpecContext) {
			needZtunnel(dataplane)
			lab := newPeerLab(ctx, dataplane)
			var short *run
			report := watched(ctx, lab, dataplane, "restart agent/a", func(r *run) {
				GinkgoHelper()
				short = newRun("flows that end before the drain")
				short.Dataplane, short.Control = string(dataplane), r.Control
				short.watch(ctx, lab.Pod("client"), &flow.Plan{Drain: peerPatience, Flows: []flow.Spec{{Name: "short",
					Kind: "trickle", To: netip.AddrPortFrom(serviceIPv4(farService), uint16(wire.Stream.Port))}}})
				short.mark(record.Now(), record.Phase{Name: "without a fault", FaultFree: true})
				during(ctx, beforeDrain)
				short.flush()
				f := &result.Fault{Spec: "restart agent/a", Name: "restart", Group: "process", Start: record.Now(), Active: 1}
				r.Faults = append(r.Faults, f)
				before := agentOf(lab, "a")
				done := make(chan error, 1)
				go func() { done <- lab.RestartAgent(ctx, "a") }()
				Eventually(ctx, func() bool {
					select {
					case err := <-done:
						done <- err
						return true
					default:
						return agentOf(lab, "a") != before
					}
				}).WithTimeout(20 * time.Second).Should(BeTrue())
				f.Injected = record.Now()
				during(ctx, beforeDrain)
				short.mark(f.Start, record.Phase{Name: "restart agent/a"})
				ended := short.judge() // in the middle of the drain
				Expect(ended.Flows.Broken).To(BeZero(), "%+v", ended)
				short.Discarded = ended.Void && !short.Control
				Expect(<-done).To(Succeed())
				f.Heal, f.End = record.Now(), record.Now()
				during(ctx, time.Second)
			})
			if dataplane == netsim.Evenkeel {
				expect(report, broken{})
				Expect(refused(report)).To(BeZero())
				return
			}
			expect(report, broken{both})
		}
	}

	for _, dataplane := range []netsim.Dataplane{netsim.Ambient, netsim.Ztunnel, netsim.Evenkeel} {
		breaks, all, some := "breaks none", "breaks none", "breaks none"
		if dataplane != netsim.Evenkeel {
			breaks, all, some = "breaks what outlives the drain", "breaks all its TCP flows", "breaks the TCP flows that cross it"
		}
		Context(string(dataplane), Label("dataplane:"+string(dataplane)), func() {
			It(all+" when it is killed on the client's node", Label("tier:smoke", "fault:kill"), limit, kill(dataplane, "a"))
			It(some+" when it is killed on the server's node", Label("tier:pr", "fault:kill"), limit, kill(dataplane, "b"))
			It(breaks+" when it is restarted", Label("tier:pr", "fault:term"), limit, term(dataplane))
		})
	}
})

// needZtunnel skips what needs a ztunnel where there is none, and says so.
func needZtunnel(dataplane netsim.Dataplane) {
	if dataplane == netsim.Ztunnel && config.Ztunnel == "" && os.Getenv(netsim.ZtunnelVariable) == "" {
		Skip(netsim.ErrNoZtunnel.Error())
	}
}

// agentOf returns the process of a node's agent.
func agentOf(lab *netsim.Lab, node string) int {
	for _, n := range lab.Info().Nodes {
		if n.Name == node {
			return n.Agent.PID
		}
	}
	return 0
}
