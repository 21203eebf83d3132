// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/evenkeel/evenkeel/bpf"
)

// WorkloadView is a pod of this node, as the sources know it and as it is enrolled.
type WorkloadView struct {
	Name           string       `json:"name"`
	UID            string       `json:"uid,omitempty"`
	Mesh           Wish         `json:"mesh,omitempty"`
	Critical       bool         `json:"critical,omitempty"`
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

// Namespaces returns what the sources say about the namespaces of pods, by name.
func (e *Engine) Namespaces() map[string]Namespace {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := make(map[string]Namespace)
	for name, n := range e.desired.spaces.all() {
		all[name] = *n
	}
	return all
}

// Workloads returns the workloads of this node in order of name, enrolled or not. Each namespace that is enrolled is one
// of its own, whatever it is called: two under one name are two, and one whose name was lost has none.
func (e *Engine) Workloads() ([]WorkloadView, error) {
	e.mu.Lock()
	known := e.desired.workloads.all()
	e.mu.Unlock()
	views := make(map[string]WorkloadView)
	for name, w := range known {
		if w != elsewhere {
			views[name] = WorkloadView{
				Name: name, ServiceAccount: w.ServiceAccount, Addresses: slices.Clone(w.Addresses), Origin: w.Origin,
				UID: w.UID, Mesh: w.Mesh, Critical: w.Critical, Known: true, Ineligible: w.ineligible(), HostNetwork: w.HostNetwork, Sidecar: w.Sidecar,
				OtherMesh: w.OtherMesh,
			}
		}
	}
	all, err := e.enrolled(views)
	if err != nil {
		return nil, err
	}
	for _, v := range all {
		delete(views, v.Name)
	}
	all = slices.AppendSeq(all, maps.Values(views))
	slices.SortFunc(all, func(a, b WorkloadView) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Cookie, b.Cookie))
	})
	return all, nil
}

// enrolled returns the workloads that are enrolled, with what is known of pods of their names.
func (e *Engine) enrolled(known map[string]WorkloadView) ([]WorkloadView, error) {
	cookies, names, err := lookupAll[uint64, bpf.MeshWorkloadName](e.opts.Maps.WorkloadNames)
	if err != nil {
		return nil, fmt.Errorf("read map workload_names: %w", err)
	}
	nameOf := make(map[uint64]bpf.MeshWorkloadName, len(cookies))
	for i, cookie := range cookies {
		nameOf[cookie] = names[i]
	}
	keys, values, err := lookupAll[bpf.MeshWorkloadKey, bpf.MeshWorkload](e.opts.Maps.Workloads)
	if err != nil {
		return nil, fmt.Errorf("read map workloads: %w", err)
	}
	var all []WorkloadView
	for i, key := range keys {
		if key.By != uint32(bpf.MeshWorkloadByWORKLOAD_BY_NETNS) {
			continue
		}
		named := nameOf[key.Id]
		name := cString(named.Pod[:])
		v, ok := known[name]
		if !ok {
			v = WorkloadView{Name: name}
		}
		v.Namespace, v.Cookie = cString(named.Netns[:]), key.Id
		v.enrol(values[i])
		all = append(all, v)
	}
	return all, nil
}

// enrol adds what the kernel knows of a workload.
func (v *WorkloadView) enrol(w bpf.MeshWorkload) {
	v.Enrolled, v.Interface = true, w.Interface
	v.Canary = w.Flags&uint32(bpf.MeshWorkloadFlagWORKLOAD_CANARY) != 0
	v.SourceChecked = w.Flags&uint32(bpf.MeshWorkloadFlagWORKLOAD_SOURCE_CHECK) != 0
	if len(v.Addresses) > 0 {
		return
	}
	for _, a := range []bpf.MeshAddress{w.Ip4, w.Ip6} {
		if a.Addr().IsValid() {
			v.Addresses = append(v.Addresses, a.Addr())
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
