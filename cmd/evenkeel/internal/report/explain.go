// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/evenkeel/evenkeel/engine"
	"github.com/evenkeel/evenkeel/upgrade"
)

// Question is what Explain is asked: what becomes of a connection of a workload to a port of a service.
type Question struct {
	Workload string // "namespace/name"
	// Service is "namespace/name", a name in the workload's namespace, or an address.
	Service  string
	Port     uint16
	Protocol engine.Protocol
}

// ParseQuestion reads the parts of a question; an empty protocol is TCP.
func ParseQuestion(workload, service, port, protocol string) (Question, error) {
	q := Question{Workload: workload, Service: service}
	if namespace, name, ok := strings.Cut(workload, "/"); !ok || namespace == "" || name == "" {
		return q, fmt.Errorf("workload %q: write NAMESPACE/POD", workload)
	}
	if service == "" {
		return q, fmt.Errorf("which service? write NAME, NAMESPACE/NAME or an address, and a port")
	}
	if port == "" {
		return q, fmt.Errorf("which port of %s? write %s:PORT", service, service)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return q, fmt.Errorf("port %q: write a number from 1 to 65535", port)
	}
	q.Port = uint16(n)
	switch strings.ToLower(protocol) {
	case "", "tcp":
		q.Protocol = engine.TCP
	case "udp":
		q.Protocol = engine.UDP
	default:
		return q, fmt.Errorf("protocol %q: tcp and udp are known", protocol)
	}
	return q, nil
}

// name is the service as "namespace/name", or its address.
func (q Question) name() string {
	if _, err := netip.ParseAddr(q.Service); err == nil || strings.Contains(q.Service, "/") {
		return q.Service
	}
	namespace, _, _ := strings.Cut(q.Workload, "/")
	return namespace + "/" + q.Service
}

// Values are the parameters of the question in a request.
func (q Question) Values() url.Values {
	return url.Values{
		"workload": {q.Workload}, "service": {q.Service}, "port": {strconv.Itoa(int(q.Port))},
		"protocol": {strings.ToLower(q.Protocol.String())},
	}
}

// Explanation says what becomes of a connection, and why.
type Explanation struct {
	Version string `json:"version"`
	engine.Explanation
	// Generation is that which the connection would run; Canary another one, of which Share of 4096 connections would
	// run that. All are 0 for what passes untouched.
	Generation uint16 `json:"generation"`
	Canary     uint16 `json:"canary,omitempty"`
	Share      uint16 `json:"share,omitempty"`
}

// Explain answers a question as the kernel stands now.
func (v *View) Explain(q Question) (*Explanation, error) {
	x, w, err := v.Engine.ExplainWorkload(q.Workload)
	if err != nil {
		return nil, err
	}
	if x.Outcome != "" {
		x.Service = q.name()
		return &Explanation{Version: Version, Explanation: x}, nil
	}
	if x, err = v.service(q); err != nil {
		return nil, err
	}
	answer := &Explanation{Version: Version, Explanation: x}
	if x.Outcome != engine.OutcomeUnknown {
		answer.Generation, answer.Canary, answer.Share = generationOf(v.Word(), w.Canary)
	}
	return answer, nil
}

// service explains a connection of a workload that is governed.
func (v *View) service(q Question) (engine.Explanation, error) {
	address, err := netip.ParseAddr(q.Service)
	if err != nil {
		return v.Engine.Explain(q.Workload, q.name(), q.Port, q.Protocol)
	}
	address = address.Unmap()
	services := v.Engine.Services()
	i := slices.IndexFunc(services, func(s engine.ServiceView) bool { return slices.Contains(s.Addresses, address) })
	switch {
	case i < 0:
		return engine.Explanation{
			Workload: q.Workload, Service: q.Service, Outcome: engine.OutcomePassed,
			Reason: "no service has that address: the connection goes where the node routes it",
		}, nil
	case services[i].Name == "":
		return nameless(q, services, address), nil
	}
	x, err := v.Engine.Explain(q.Workload, services[i].Name, q.Port, q.Protocol)
	return only(x, address), err
}

// only keeps of an explanation what is of the address that was asked for.
func only(x engine.Explanation, address netip.Addr) engine.Explanation {
	i := slices.IndexFunc(x.Ports, func(p engine.ExplainedPort) bool { return p.Address.Addr() == address })
	if i >= 0 {
		x.Outcome, x.Reason, x.Ports = x.Ports[i].Outcome, x.Ports[i].Why, x.Ports[i:i+1:i+1]
	}
	return x
}

// nameless explains a connection to a service that is in the kernel, but that no source has named: there is no agent,
// or not yet.
func nameless(q Question, services []engine.ServiceView, address netip.Addr) engine.Explanation {
	x := engine.Explanation{
		Workload: q.Workload, Service: q.Service, Outcome: engine.OutcomeRefused,
		Reason: fmt.Sprintf("the service has no port %d of %s (refused_no_port)", q.Port, q.Protocol),
	}
	for _, s := range services {
		for _, p := range s.Ports {
			if p.Address != netip.AddrPortFrom(address, q.Port) || p.Protocol != q.Protocol.String() {
				continue
			}
			x.Reason = "the service has no endpoint (refused_no_endpoint)"
			if len(p.Levels) > 0 {
				x.Outcome = engine.OutcomeSelected
				x.Reason = "these are in the kernel; without an agent nobody knows why"
				x.Ports = []engine.ExplainedPort{{
					Address: p.Address, Outcome: x.Outcome, Level: p.Level, Why: x.Reason, Endpoints: p.Levels[0].Endpoints,
				}}
			}
		}
	}
	return x
}

// generationOf says what a new connection is stamped with.
func generationOf(w upgrade.Word, chosen bool) (generation, canary, share uint16) {
	if w.Canary() == 0 {
		return w.Serve(), 0, 0
	}
	if chosen {
		return w.Canary(), 0, 0
	}
	return w.Serve(), w.Canary(), w.Share()
}
