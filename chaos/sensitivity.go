// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/evenkeel/evenkeel/netsim"
	"github.com/evenkeel/evenkeel/netsim/flow"
	"github.com/evenkeel/evenkeel/netsim/flow/record"
	"github.com/evenkeel/evenkeel/netsim/flow/tamper"
)

// Who tests the tests: one exact wrong is done to each of twenty flows on plain wires, without any mesh, and the verdict
// has to say so of all twenty, and of none of the flows beside them to which nothing was done.
var _ = Describe("Sensitivity", Label("dataplane:none", "tier:pr"), Ordered, ContinueOnFailure, func() {
	const victims = 20
	// Half of the flows stay on their node, half cross the wire.
	var lab *netsim.Lab
	places := []string{"near", "far"}

	BeforeAll(func(ctx SpecContext) {
		lab = newLab(ctx, `
  nodes:
  - {name: a, podCIDRs: [10.10.1.0/24, "fd00:10:1::/64"]}
  - {name: b, podCIDRs: [10.10.2.0/24, "fd00:10:2::/64"]}
  wires: [{between: [a, b]}]
  pods:
  - {name: client, node: a}
  - {name: near, node: a}
  - {name: near-relay, node: a}
  - {name: far, node: b}
  - {name: far-relay, node: b}
`)
	})

	const limit = SpecTimeout(2 * time.Minute)

	// conclusive runs a plan, does something to its flows once there is a budget, and returns the report. A run that is
	// void has shown nothing: it is done again.
	conclusive := func(ctx SpecContext, p *flow.Plan, what string, act func([]*tamper.Relay, time.Duration)) *record.Report {
		GinkgoHelper()
		for range tries {
			r := newRun(what)
			r.Control = what != "nothing"
			var relays []*tamper.Relay
			var end []func() error
			for _, place := range places {
				s, relay := r.serve(ctx, lab.Pod(place)), r.relay(ctx, lab.Pod(place+"-relay"), address(lab, place))
				relays, end = append(relays, relay), append(end, relay.Stop, s.Stop)
			}
			r.watch(ctx, lab.Pod("client"), p)
			act(relays, r.quiet(ctx, what))
			report := r.judge()
			for _, stop := range end {
				Expect(stop()).To(Succeed())
			}
			if !report.Void {
				return report
			}
			r.Discarded = true
		}
		Fail("the machine is too busy: every run was void")
		return nil
	}

	// plan has n flows of a kind through the relays, and as many beside them.
	plan := func(n int, kinds ...string) *flow.Plan {
		p := &flow.Plan{Drain: flow.Duration(time.Second)} // a datagram that is lost is waited for
		for _, kind := range kinds {
			for i := range n {
				place := places[i%2]
				p.Flows = append(p.Flows,
					flow.Spec{Name: fmt.Sprintf("victim %s %s %d", kind, place, i), Kind: kind,
						To: port(kind, address(lab, place+"-relay"))},
					flow.Spec{Name: fmt.Sprintf("bystander %s %s %d", kind, place, i), Kind: kind,
						To: port(kind, address(lab, place))})
			}
		}
		return p
	}

	// do does wrong to n flows.
	do := func(n int, o tamper.Order) func([]*tamper.Relay, time.Duration) {
		return func(relays []*tamper.Relay, budget time.Duration) {
			GinkgoHelper()
			if o.Wrong == tamper.Hole {
				o.For = 3 * budget
			}
			done := 0
			for _, r := range relays {
				d, err := r.Do(o)
				Expect(err).NotTo(HaveOccurred())
				done += d
			}
			Expect(done).To(Equal(n), "connections to which it was done")
		}
	}

	// caught checks that every victim has the verdict, and that all others are intact.
	caught := func(report *record.Report, n int, want record.Verdict, reasons ...record.Reason) {
		GinkgoHelper()
		victims := 0
		for _, d := range report.Details {
			if !strings.HasPrefix(d.Name, "victim") {
				Expect(d.Verdict).To(Equal(record.Intact), "false alarm: %+v", d)
				continue
			}
			victims++
			Expect(d.Verdict).To(Equal(want), "%+v", d)
			if want == record.Broken {
				Expect(reasons).To(ContainElement(d.Reason), "%+v", d)
			}
		}
		Expect(victims).To(Equal(n))
		figure("caught", float64(victims), "")
		figure("bystanders intact", float64(len(report.Details)-victims), "")
	}

	DescribeTable("finds", func(ctx SpecContext, wrong tamper.Wrong, kind string, want record.Verdict,
		reasons ...record.Reason) {
		report := conclusive(ctx, plan(victims, kind), string(wrong), do(victims, tamper.Order{Wrong: wrong}))
		caught(report, victims, want, reasons...)
	},
		Entry("a hole of three budgets in TCP", limit, tamper.Hole, "trickle", record.Stalled),
		Entry("a flipped bit in TCP", limit, tamper.Flip, "trickle", record.Broken, record.Corrupt, record.Unanswered),
		Entry("a frame twice in TCP", limit, tamper.Duplicate, "trickle", record.Broken, record.Duplicated),
		Entry("a frame less in TCP", limit, tamper.Lose, "trickle", record.Broken, record.Lost),
		Entry("a reset of TCP", limit, tamper.Cut, "trickle", record.Broken, record.Reset, record.Closed),
		Entry("a hole of three budgets in UDP", limit, tamper.Hole, "udp", record.Stalled),
		Entry("a flipped bit in UDP", limit, tamper.Flip, "udp", record.Broken, record.Corrupt),
		Entry("a datagram twice", limit, tamper.Duplicate, "udp", record.Broken, record.Duplicated),
		Entry("a datagram less", limit, tamper.Lose, "udp", record.Broken, record.Lost))

	// The other kinds, four flows each.
	streams := []string{"bulk", "half-closed", "server-first", "tls", "http", "long-poll", "http2", "grpc", "websocket"}
	DescribeTable("finds in every kind", func(ctx SpecContext, wrong tamper.Wrong, kinds []string, want record.Verdict,
		reasons ...record.Reason) {
		const each = 2
		n := each * len(kinds)
		report := conclusive(ctx, plan(each, kinds...), string(wrong), do(n, tamper.Order{Wrong: wrong}))
		caught(report, n, want, reasons...)
	},
		Entry("a hole of three budgets", limit, tamper.Hole, streams, record.Stalled),
		Entry("a flipped bit", limit, tamper.Flip, streams, record.Broken, record.Corrupt, record.Unanswered, record.Closed,
			record.Reset, record.Failed),
		Entry("a reset", limit, tamper.Cut, streams, record.Broken, record.Reset, record.Closed))

	It("finds that an idle connection was cut", func(ctx SpecContext) {
		report := conclusive(ctx, plan(victims, "idle", "trickle"), "cut", do(2*victims, tamper.Order{Wrong: tamper.Cut}))
		caught(report, 2*victims, record.Broken, record.Reset, record.Closed)
	}, limit)

	It("finds one wrongly allowed connection", func(ctx SpecContext) {
		const first = 7100
		p := &flow.Plan{}
		for i := range victims {
			at := netip.AddrPortFrom(address(lab, places[i%2]+"-relay"), uint16(first+i/2))
			beside := netip.AddrPortFrom(at.Addr(), at.Port()+victims)
			p.Flows = append(p.Flows,
				flow.Spec{Name: fmt.Sprintf("victim %d", i), Kind: "probe", Must: record.MustFail, To: at},
				flow.Spec{Name: fmt.Sprintf("bystander %d", i), Kind: "probe", Must: record.MustFail, To: beside})
		}
		report := conclusive(ctx, p, "allow", do(victims, tamper.Order{Wrong: tamper.Allow, Port: first, Count: victims / 2}))
		caught(report, victims, record.Broken, record.Allowed)
		Expect(report.WrongVerdicts).To(BeNumerically(">=", victims))
	}, limit)

	// The control of the control: what is caught is the wrong, not the relay.
	It("finds nothing where nothing is done", func(ctx SpecContext) {
		kinds := append([]string{"idle", "trickle", "udp", "storm"}, streams...)
		nothing := func([]*tamper.Relay, time.Duration) { during(ctx, time.Second) }
		report := conclusive(ctx, plan(2, kinds...), "nothing", nothing)
		Expect(report.Verdict).To(Equal(record.Passed), "%+v", report)
	}, limit)
})

// address returns the IPv4 address of a pod.
func address(lab *netsim.Lab, pod string) netip.Addr {
	GinkgoHelper()
	p := lab.Pod(pod)
	Expect(p).NotTo(BeNil(), "pod %s", pod)
	return p.Addresses[0]
}

// port returns where flows of a kind find the server of a pod.
func port(kind string, server netip.Addr) netip.AddrPort {
	GinkgoHelper()
	for _, k := range flow.Kinds() {
		if k.Name == kind {
			return k.Address(server)
		}
	}
	Fail("there is no kind " + kind)
	return netip.AddrPort{}
}
