// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/evenkeel/evenkeel/bpf"
)

// WorkloadView is a pod of this node, as the sources know it and as it is enrolled.
type WorkloadView struct {
	Name           string       `json:"name"`
	ServiceAccount string       `json:"serviceAccount,omitempty"`
	Addresses      []netip.Addr `json:"addresses,omitempty"`
	Origin         string       `json:"origin,omitempty"`
	// Known is false if no source has it: it is enrolled all the same.
	Known bool `json:"known"`
	// Ineligible says why it must not be enrolled, empty if it may; the next three are the facts behind that.
	Ineligible  string `json:"ineligible,omitempty"`
	HostNetwork bool   `json:"hostNetwork,omitempty"`
	Sidecar     string `json:"sidecar,omitempty"`
	OtherMesh   string `json:"otherMesh,omitempty"`
	// Enrolled is whether its connections are governed; the rest is of its enrolment.
	Enrolled      bool   `json:"enrolled"`
	Namespace     string `json:"networkNamespace,omitempty"` // path
	Cookie        uint64 `json:"cookie,omitempty"`
	Interface     uint32 `json:"interface,omitempty"` // index of its veth on the node
	Canary        bool   `json:"canary,omitempty"`
	SourceChecked bool   `json:"sourceChecked,omitempty"`
}

// Workloads returns the workloads of this node in order of name, enrolled or not.
func (e *Engine) Workloads() ([]WorkloadView, error) {
	e.mu.Lock()
	known := e.desired.workloads.all()
	e.mu.Unlock()
	views := make(map[string]*WorkloadView)
	for name, w := range known {
		if w != elsewhere {
			views[name] = &WorkloadView{
				Name: name, ServiceAccount: w.ServiceAccount, Addresses: slices.Clone(w.Addresses), Origin: w.Origin,
				Known: true, Ineligible: w.ineligible(), HostNetwork: w.HostNetwork, Sidecar: w.Sidecar,
				OtherMesh: w.OtherMesh,
			}
		}
	}
	cookies, names, err := lookupAll[uint64, bpf.MeshWorkloadName](e.opts.Maps.WorkloadNames)
	if err != nil {
		return nil, fmt.Errorf("read map workload_names: %w", err)
	}
	for i, cookie := range cookies {
		name := cString(names[i].Pod[:])
		v := views[name]
		if v == nil {
			v = &WorkloadView{Name: name}
			views[name] = v
		}
		v.Namespace, v.Cookie = cString(names[i].Netns[:]), cookie
		e.enrolment(v)
	}
	sorted := make([]WorkloadView, 0, len(views))
	for _, name := range slices.Sorted(maps.Keys(views)) {
		sorted = append(sorted, *views[name])
	}
	return sorted, nil
}

// enrolment adds what the kernel knows of the workload whose cookie v has.
func (e *Engine) enrolment(v *WorkloadView) {
	var w bpf.MeshWorkload
	by := bpf.MeshWorkloadKey{Id: v.Cookie, By: uint32(bpf.MeshWorkloadByWORKLOAD_BY_NETNS)}
	if e.opts.Maps.Workloads.Lookup(by, &w) != nil {
		return // it has just left
	}
	v.Enrolled, v.Interface = true, w.Interface
	v.Canary = w.Flags&uint32(bpf.MeshWorkloadFlagWORKLOAD_CANARY) != 0
	v.SourceChecked = w.Flags&uint32(bpf.MeshWorkloadFlagWORKLOAD_SOURCE_CHECK) != 0
	if len(v.Addresses) == 0 {
		for _, a := range []bpf.MeshAddress{w.Ip4, w.Ip6} {
			if a.Addr().IsValid() {
				v.Addresses = append(v.Addresses, a.Addr())
			}
		}
	}
}

func (w *Workload) ineligible() string {
	switch {
	case w.HostNetwork:
		return "it shares the network namespace of the node"
	case w.Sidecar != "":
		return fmt.Sprintf("it has a proxy of its own: container %s", w.Sidecar)
	case w.OtherMesh != "":
		return fmt.Sprintf("it belongs to another mesh: %s", w.OtherMesh)
	}
	return ""
}
