// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/evenkeel/evenkeel/netsim"
	"github.com/evenkeel/evenkeel/netsim/fault"
	"github.com/evenkeel/evenkeel/netsim/flow"
	"github.com/evenkeel/evenkeel/netsim/flow/record"
)

// row is a fault and what is promised while it lasts and afterwards. In the end all flows of every kind work again, old
// ones and new ones, what must be refused is refused, the agents are healthy, and the lab has what it had.
type row struct {
	fault string
	tier  string
	// loses names the flows and attempts that may be lost while the fault lasts; nil is none. All others hold.
	loses func(record.FlowVerdict) bool
	// slow tells that frames may be late, as where packets are lost and sent again.
	slow bool
	// says is what an agent has to complain of meanwhile; empty if there is nothing to say.
	says string
	// hold is how long it lasts, 500 ms if it is 0.
	hold time.Duration
}

// What can be lost.
func nothing(record.FlowVerdict) bool       { return false }
func refusals(d record.FlowVerdict) bool    { return d.Must == record.MustFail }
func connections(d record.FlowVerdict) bool { return d.Must == record.MustPass || d.Kind == "storm" }
func datagrams(d record.FlowVerdict) bool   { return d.Kind == "udp" }
func toOtherNode(d record.FlowVerdict) bool { return strings.HasSuffix(d.Name, crossNode) }
func newToOtherNode(d record.FlowVerdict) bool {
	return toOtherNode(d) && (connections(d) || datagrams(d))
}
func newToSameNode(d record.FlowVerdict) bool {
	return !toOtherNode(d) && (connections(d) || datagrams(d))
}
func notEstablished(d record.FlowVerdict) bool { return refusals(d) || connections(d) || datagrams(d) }

// tables are the faults by group, each kind at least once. Where one is done to a node, it is the client's, a, unless
// that would take the client along.
var tables = map[string][]row{
	"process": {
		{fault: "kill-at agent/a seed=1", tier: "nightly"},
		{fault: "double-crash agent/a seed=1", tier: "nightly"},
		{fault: "stop-at agent/a seed=1", tier: "nightly"},
		{fault: "wedge-at agent/a seed=1", tier: "nightly"},
		{fault: "descriptors agent/a", tier: "nightly"},
		{fault: "second-agent agent/a", tier: "pr"},
	},
	"control-plane": {
		// Without its documents there are no services: what is connected by TCP stays so, the rest passes by.
		{fault: "source-gone source", tier: "nightly", loses: notEstablished},
		{fault: "source-away source", tier: "nightly", says: "no such file"},
		{fault: "source-truncated source seed=1", tier: "nightly"},
		{fault: "source-poisoned source", tier: "pr", says: "poison.yaml"},
		{fault: "source-storm source", tier: "nightly"},
	},
	"bpf": {
		{fault: "pin-deleted node/a pin=super", tier: "pr", says: "super: it is gone"},
		// The link goes with the agent that was the last to hold it; until the next one attaches again, the hook is open.
		{fault: "pin-deleted node/a pin=links/connect4", tier: "nightly", loses: refusals, says: "links/connect4: it is gone"},
		{fault: "pin-foreign node/a pin=links/connect4 with=map", tier: "nightly", says: "it is a map, not a link"},
		{fault: "pin-foreign node/a pin=maps/workloads with=program", tier: "nightly", says: "it is a program, not a map"},
		{fault: "pin-foreign node/a pin=links/sock_ops with=link", tier: "nightly", says: "links/sock_ops"},
		{fault: "pin-foreign node/a pin=gen/*/maps/slots with=directory", tier: "nightly", says: "slots"},
		{fault: "map-full node/a", tier: "nightly"},
		{fault: "map-full node/a map=gen/*/maps/service_ids", tier: "nightly"},
		{fault: "map-full node/a map=gen/*/maps/peers", tier: "nightly"},
		{fault: "map-corrupted node/a seed=1", tier: "nightly", loses: connections},
		// An open hook leads new connections past the mesh until the agent has attached it again.
		{fault: "link-detached node/a", tier: "pr", loses: refusals, says: "links/connect4: it is detached"},
		{fault: "link-detached node/a pin=links/sendmsg6", tier: "nightly", says: "links/sendmsg6: it is detached"},
		// Its sockets keep the old cgroup, and its links with it: what is connected goes on.
		{fault: "cgroup-recreated node/a", tier: "nightly", loses: refusals, says: "links/connect4: its cgroup was removed"},
		{fault: "cgroup-recreated node/b", tier: "nightly", loses: connections},
		{fault: "other-program node/a", tier: "nightly"},
		{fault: "other-program node/a order=before hook=peername4", tier: "nightly"},
		{fault: "verifier-refusal agent/a", tier: "nightly"},
		{fault: "missing-feature agent/a", tier: "nightly"},
		// With the pins everything goes but what is connected: sockets have their endpoint.
		{fault: "pins-deleted node/a", tier: "nightly", loses: notEstablished},
		{fault: "bpffs-unmounted lab", tier: "nightly", loses: notEstablished},
	},
	"topology": {
		{fault: "link-down pod/near", tier: "nightly", slow: true, loses: newToSameNode},
		{fault: "wire-down wire/a,b", tier: "nightly", slow: true, loses: newToOtherNode},
		{fault: "link-mtu pod/far end=pod", tier: "nightly"},
		{fault: "wire-mtu wire/a,b mtu=1300", tier: "nightly", slow: true, loses: newToOtherNode},
		{fault: "link-recreated pod/extra", tier: "nightly"},
		{fault: "address-changed pod/extra", tier: "nightly"},
		{fault: "netns-deleted pod/extra", tier: "pr"},
		{fault: "reboot node/b order=agent,network,servers", tier: "nightly", loses: toOtherNode},
		{fault: "reboot node/b order=network,agent,servers", tier: "nightly", loses: toOtherNode},
		{fault: "reboot node/b order=network,servers,agent", tier: "nightly", loses: toOtherNode},
	},
	"wire": {
		{fault: "partition wire/a,b", tier: "pr", slow: true, loses: newToOtherNode},
		{fault: "partition wire/a,b ways=one", tier: "nightly", slow: true, loses: newToOtherNode},
		{fault: "half-partition wire/a,b seed=1", tier: "nightly", slow: true, loses: newToOtherNode},
		{fault: "flapping wire/a,b", tier: "nightly", slow: true, loses: newToOtherNode},
		{fault: "loss wire/a,b share=1%", tier: "nightly", slow: true, loses: newToOtherNode},
		// What is under way when it ends is gone; TCP sends it again, but a handshake takes too long then.
		{fault: "delay wire/a,b", tier: "nightly", slow: true, loses: newToOtherNode},
	},
}

// A fault of every kind that there is, with what has to hold while it lasts.
var _ = Describe("Tables of faults", Label("dataplane:evenkeel", "tables"), Ordered, ContinueOnFailure, func() {
	var lab *netsim.Lab
	BeforeAll(func(ctx SpecContext) { lab = newWalkLab(ctx) })
	for _, group := range []string{"process", "control-plane", "bpf", "topology", "wire"} {
		for _, r := range tables[group] {
			name, _, _ := strings.Cut(r.fault, " ")
			It(group+": "+r.fault, Label("tier:"+r.tier, "fault:"+name), SpecTimeout(4*time.Minute), func(ctx SpecContext) {
				r.keep(ctx, lab)
			})
		}
	}

	// Whichever name goes, no connection notices, and the next agent gives it back.
	It("bpf: pin-deleted node/a, each pin in turn", Label("tier:nightly", "fault:pin-deleted"), SpecTimeout(8*time.Minute),
		func(ctx SpecContext) {
			tcp := slices.DeleteFunc(established(), func(s flow.Spec) bool { return s.Kind == "udp" })
			var all []string
			dir := nodeInfo(lab, "a").PinDir
			Expect(filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
				if err == nil && entry.Type().IsRegular() {
					all = append(all, strings.TrimPrefix(path, dir+"/"))
				}
				return err
			})).To(Succeed())
			Expect(all).To(ContainElements("super", "maps/workloads", "links/connect4"))
			watchedWhile(ctx, lab, "pin-deleted", tcp, func(r *run) {
				had := take(lab)
				for _, pin := range all {
					By(pin)
					f := r.inject(ctx, lab, "pin-deleted node/a pin="+pin)
					f.heal(ctx)
					for _, pod := range []string{"client", "near"} { // names of pods go with their map, as status says
						Expect(lab.Enrol(ctx, "default/"+pod)).To(Succeed())
					}
					healthy(ctx, lab, "a")
					same(ctx, lab, had, byName)
				}
			})
			figure("pins", float64(len(all)), "")
		})

	It("have every fault that there is", Label("tier:pr"), func() {
		used := []string{"term", "kill", "crash-loop", "stop", "freeze", "out-of-memory"} // of the restart table
		for _, rows := range tables {
			for _, r := range rows {
				used = append(used, parseFault(r.fault).Fault)
			}
		}
		for _, k := range fault.Kinds() {
			Expect(used).To(ContainElement(k.Name))
		}
	})
})

// keep injects the fault under flows, and fails the spec if something is lost that must not be.
func (w row) keep(ctx SpecContext, lab *netsim.Lab) {
	GinkgoHelper()
	loses := w.loses
	if loses == nil {
		loses = nothing
	}
	timed := w.loses == nil && !w.slow
	before := take(lab)
	for try := 0; ; try++ {
		if try == tries {
			Fail("the machine is too busy: every run was void")
		}
		r := newRun(w.fault)
		// Of a row that may lose something the report counts what it keeps, below.
		r.Untimed, r.Control = !timed, w.loses != nil
		serveMesh(ctx, r, lab)
		r.watch(ctx, lab.Pod("client"), &flow.Plan{Flows: everyFlow()})
		if timed {
			r.quiet(ctx, w.fault)
		} else {
			r.begin(ctx, w.fault)
		}
		f := r.inject(ctx, lab, w.fault)
		during(ctx, max(w.hold, 500*time.Millisecond))
		if w.says != "" {
			Eventually(ctx, func() string { return said(ctx, lab) }).WithTimeout(settling).WithPolling(polling).
				Should(ContainSubstring(w.says))
		}
		f.heal(ctx)
		during(ctx, 500*time.Millisecond)
		report := r.finish()
		r.witness()
		for _, d := range report.Details {
			if loses(d) || report.Void && d.Must == record.MustPass {
				continue
			}
			Expect(d.Verdict).NotTo(Equal(record.Broken), "%+v", d)
		}
		if timed && report.Void {
			r.Discarded = true
			continue
		}
		if timed {
			Expect(report.Flows.Stalled).To(BeZero(), "%+v", stalled(report))
		}
		figure("worst gap", report.WorstGap, "ms")
		figure("frames while it lasted", float64(f.entry.Frames), "")
		break
	}
	w.afterwards(ctx, lab)
	same(ctx, lab, before, byName)
}

// afterwards makes sure that everything works again, once the pods are enrolled whose programs or namespace went.
func (w row) afterwards(ctx SpecContext, lab *netsim.Lab) {
	GinkgoHelper()
	for _, pod := range []string{"client", "near", "far", "extra"} {
		Expect(lab.Enrol(ctx, "default/"+pod)).To(Succeed())
	}
	for _, node := range []string{"a", "b"} {
		Eventually(ctx, func() error {
			if nodeInfo(lab, node).Agent.State != netsim.AgentRunning {
				return fmt.Errorf("agent of node %s does not run", node)
			}
			return nil
		}).WithTimeout(settling).WithPolling(polling).Should(Succeed())
		healthy(ctx, lab, node)
	}
	r := newRun("after " + w.fault)
	r.Untimed = true
	serveMesh(ctx, r, lab)
	r.watch(ctx, lab.Pod("client"), &flow.Plan{Flows: everyFlow()})
	r.begin(ctx, "afterwards")
	during(ctx, 300*time.Millisecond)
	report := r.judge()
	r.stop()
	unbroken(report)
}

// said is what the agents complain of; those that cannot be asked say nothing.
func said(ctx SpecContext, lab *netsim.Lab) string {
	var all []string
	for _, node := range []string{"a", "b"} {
		if list, err := problems(ctx, lab, node); err == nil {
			all = append(all, list...)
		}
	}
	return strings.Join(all, "\n")
}
