// SPDX-License-Identifier: Apache-2.0

package report

import (
	"errors"
	"net/netip"

	"github.com/evenkeel/evenkeel/engine"
	"github.com/evenkeel/evenkeel/engine/enrol"
)

// Workload is a pod of this node, enrolled or not. Each network namespace that is enrolled is one, by its cookie, though
// two should have one name.
type Workload struct {
	Name     string `json:"name"`
	Enrolled bool   `json:"enrolled"`
	// Reason is a sentence on why it is not enrolled, or why it is not governed as it should be although it is. Code is
	// "host-network", "sidecar" or "other-mesh" where a rule forbids it, "not-enrolled" where nobody has enrolled it, "outside" where it was to be,
	// "broken" where it lost a program or an element, "gone" where its network namespace is no more; empty if all is well.
	Reason    string       `json:"reason,omitempty"`
	Code      string       `json:"code,omitempty"`
	Addresses []netip.Addr `json:"addresses"`
	// Netns is the path of its network namespace, Cookie the number by which the kernel knows that, Interface the index
	// of its veth on the node.
	Netns         string `json:"netns,omitempty"`
	Cookie        uint64 `json:"cookie,omitempty"`
	Interface     uint32 `json:"interface,omitempty"`
	SourceChecked bool   `json:"sourceChecked,omitempty"`
	Canary        bool   `json:"canary,omitempty"`
	Origin        string `json:"origin,omitempty"`
}

// Workloads lists the pods of this node by name: those enrolled, and those that the sources know of.
func (v *View) Workloads() ([]Workload, error) {
	o, err := v.enrolment()
	if err != nil {
		return nil, err
	}
	health, err := enrol.Check(o)
	if err != nil {
		return nil, err
	}
	views, err := v.Engine.Workloads()
	if err != nil {
		return nil, err
	}
	var outside map[string]string
	if v.Outside != nil {
		outside = v.Outside()
	}
	all := make([]Workload, len(views))
	for i, view := range views {
		all[i] = workloadOf(view)
		if why, is := outside[view.Name]; is && !view.Enrolled {
			all[i].Reason, all[i].Code = "it has to be in the mesh: "+why, "outside"
		}
		for _, b := range health.Broken {
			if b.Cookie == view.Cookie && view.Enrolled {
				all[i].Reason, all[i].Code = b.Why, "broken"
			}
		}
		for _, g := range health.Gone {
			if g.Cookie == view.Cookie && view.Enrolled {
				all[i].Reason, all[i].Code = "its network namespace is gone", "gone"
			}
		}
	}
	return all, nil
}

func workloadOf(v engine.WorkloadView) Workload {
	w := Workload{
		Name: v.Name, Enrolled: v.Enrolled, Addresses: v.Addresses, Netns: v.Namespace, Cookie: v.Cookie,
		Interface: v.Interface, SourceChecked: v.SourceChecked, Canary: v.Canary, Origin: v.Origin,
	}
	if w.Addresses == nil {
		w.Addresses = []netip.Addr{}
	}
	err := enrol.Decide(v.Name, enrol.Facts{HostNetwork: v.HostNetwork, Sidecar: v.Sidecar, OtherMesh: v.OtherMesh})
	var refused *enrol.RefusedError
	switch {
	case errors.As(err, &refused) && v.Enrolled: // by somebody who did not have its manifest, or it has changed since
		w.Reason, w.Code = "it is enrolled and must not be: "+refused.Detail+"; 'evenkeel withdraw' takes it out",
			string(refused.Reason)
	case refused != nil:
		w.Reason, w.Code = refused.Detail, string(refused.Reason)
	case !v.Enrolled:
		w.Reason, w.Code = "nobody has enrolled it", "not-enrolled"
	}
	return w
}
