// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"net/netip"
	"slices"
)

// Explanation says what happens when a workload connects to a port of a service, and why.
type Explanation struct {
	Workload string `json:"workload"`
	Service  string `json:"service"`
	// Outcome is "selected", "refused", "passed": untouched, or "unknown": nothing on this node has a pod, or a service,
	// of that name.
	Outcome string `json:"outcome"`
	// Reason is a sentence for people.
	Reason string `json:"reason"`
	// Ports are the addresses that can be dialled, one of a family, with the endpoints that a connection can get.
	Ports []ExplainedPort `json:"ports"`
}

// ExplainedPort is one address of an explanation.
type ExplainedPort struct {
	Address netip.AddrPort `json:"address"`
	Outcome string         `json:"outcome"`
	Level   string         `json:"level,omitempty"`
	Why     string         `json:"why"`
	// Given is the endpoint that the workload's next connection gets, where its affinity or its hash has decided that.
	Given netip.AddrPort `json:"given,omitzero"`
	// Endpoints are those of the level, empty if the connection is refused.
	Endpoints []EndpointView `json:"endpoints"`
}

// Outcomes of an explanation.
const (
	OutcomeSelected = "selected"
	OutcomeRefused  = "refused"
	OutcomePassed   = "passed"
	OutcomeUnknown  = "unknown"
)

// Explain says what a connection of a workload of this node to a port of a service gets, as the kernel stands now.
func (e *Engine) Explain(workload, service string, port uint16, protocol Protocol) (Explanation, error) {
	x, w, err := e.ExplainWorkload(workload)
	x.Service = service
	if err != nil || x.Outcome != "" {
		return x, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.explainService(&x, &w, port, protocol)
	return x, nil
}

// ExplainWorkload is Explain as far as it hangs on the workload alone: its outcome is empty if the workload is
// governed, so that it hangs on what is dialled.
func (e *Engine) ExplainWorkload(workload string) (Explanation, WorkloadView, error) {
	x := Explanation{Workload: workload}
	workloads, err := e.Workloads()
	if err != nil {
		return x, WorkloadView{}, err
	}
	i := slices.IndexFunc(workloads, func(w WorkloadView) bool { return w.Name == workload })
	if i < 0 {
		x.Outcome, x.Reason = OutcomeUnknown, e.whyUnknown(workload)
		return x, WorkloadView{}, nil
	}
	w := workloads[i]
	switch {
	case w.Enrolled:
		return x, w, nil
	case w.Ineligible != "":
		x.Outcome, x.Reason = OutcomePassed, "the workload is not enrolled: "+w.Ineligible
	default:
		x.Outcome, x.Reason = OutcomePassed, "the workload is not enrolled, so its connections are untouched"
	}
	return x, w, nil
}

func (e *Engine) whyUnknown(workload string) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.desired.workloads.winner(workload) == elsewhere:
		return fmt.Sprintf("the pod is not of this node, %s: ask on the node that it runs on", e.desired.node)
	case e.desired.node == "":
		return "no pod of that name is enrolled here, and without an agent nobody knows of others"
	}
	return fmt.Sprintf("no source has a pod of that name, and none is enrolled on this node, %s: look at evenkeel dump "+
		"workloads", e.desired.node)
}

func (e *Engine) explainService(x *Explanation, w *WorkloadView, port uint16, protocol Protocol) {
	s := e.desired.byName[x.Service]
	x.Outcome = OutcomePassed
	switch {
	case s == nil || s.spec == nil:
		x.Outcome, x.Reason = OutcomeUnknown, "no source has a service of that name: look at evenkeel dump services"
		return
	case s.spec.ExternalName != "":
		x.Reason = fmt.Sprintf("the service is another name (ExternalName) for %s: it has no address of its own, that of "+
			"%s is dialled", s.spec.ExternalName, s.spec.ExternalName)
		return
	case len(s.spec.Addresses) == 0:
		x.Reason = "the service is headless: it has no address of its own, its endpoints are dialled directly"
		return
	}
	listed := len(s.guards) > 0
	for _, st := range s.sets {
		listed = listed || st.listed
		if st.listed && Protocol(st.key.Protocol) == protocol && addressOf(st.key).Port() == port {
			x.Ports = append(x.Ports, e.explainPort(st, w))
		}
	}
	switch {
	case len(x.Ports) > 0:
		x.Outcome, x.Reason = x.Ports[0].Outcome, x.Ports[0].Why
	case !listed && len(s.problems) > 0:
		x.Reason = "the service is not served: " + s.problems[0].Error()
	case !listed:
		x.Reason = "the service is not in the kernel: it has no ports"
	default:
		x.Outcome = OutcomeRefused
		x.Reason = fmt.Sprintf("the service has no port %d of %s (refused_no_port)", port, protocol)
	}
}

func (e *Engine) explainPort(st *set, w *WorkloadView) ExplainedPort {
	v := e.portView(st, st.owner.spec.port(st.key))
	x := ExplainedPort{Address: v.Address, Outcome: OutcomeRefused}
	if v.Level == "" {
		x.Why = e.whyNone(st)
		return x
	}
	x.Outcome, x.Level, x.Endpoints = OutcomeSelected, v.Level, v.Levels[0].Endpoints
	x.Why = e.whyLevel(st, v.Level) + whyAmong(st)
	x.Given = e.given(st, w)
	return x
}

// whyNone says why a set has no endpoint for anybody.
func (e *Engine) whyNone(st *set) string {
	w := newWants()
	w.gather(st.owner, st.owner.spec.port(st.key), isMappedAddress(st.key.Address), e.desired)
	all, weightless, away := len(w.list), 0, 0
	for i := range w.list {
		if w.list[i].weight == 0 {
			weightless++
		} else if st.owner.spec.LocalOnly && !w.list[i].of.isOn(e.desired.node) {
			away++
		}
	}
	const reason = " (refused_no_endpoint)"
	switch {
	case len(st.owner.slices) == 0:
		return "no source has endpoints of the service" + reason
	case all == 0:
		return "its endpoints have no such port, or none is of the address's family" + reason
	case away > 0:
		return fmt.Sprintf("endpoints of this node only are allowed, and %d of %d run elsewhere", away, all) + reason
	case weightless == all:
		return fmt.Sprintf("all %d endpoints have weight 0", all) + reason
	}
	return fmt.Sprintf("none of %d endpoints is ready, or terminating and still serving", all) + reason
}

func (e *Engine) whyLevel(st *set, level string) string {
	spec := st.owner.spec
	switch level {
	case levelNames[levelNode]:
		if spec.LocalOnly {
			return "endpoints of this node only are allowed"
		}
		return fmt.Sprintf("every ready endpoint has hints for nodes, and these for node %s", e.desired.node)
	case levelNames[levelZone]:
		return fmt.Sprintf("every ready endpoint has hints for zones, and these for zone %s", e.desired.zone)
	case levelNames[levelServing]:
		return "no endpoint is ready; these are terminating, but still serve"
	}
	switch {
	case spec.Distribution == Anywhere:
		return "all ready endpoints"
	case e.desired.zone == "" && spec.Distribution == SameZone:
		return "the zone of this node is not known, so all ready endpoints"
	}
	return "no endpoint is hinted to be near, or some have no hints, so all ready endpoints"
}

func whyAmong(st *set) string {
	spec, how := st.owner.spec, "; one is chosen at random, by weight"
	if spec.ConsistentHash {
		how = "; one is chosen by a hash of the workload's address"
	}
	if spec.Affinity > 0 {
		how += fmt.Sprintf(", and kept until the workload was idle for %s", spec.Affinity)
	}
	return how
}
