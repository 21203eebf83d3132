// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/evenkeel/evenkeel/cni"
	"github.com/evenkeel/evenkeel/engine"
)

func TestDecisionsAndWork(t *testing.T) {
	namespaces := map[string]engine.Namespace{
		"in": {Mesh: engine.InMesh}, "out": {Mesh: engine.OutOfMesh}, "quiet": {},
		"both": {Mesh: engine.InMesh, OtherMesh: "istio ambient"},
	}
	pods := []engine.WorkloadView{
		{Name: "in/plain"},
		{Name: "in/enrolled", Enrolled: true},
		{Name: "in/no", UID: "u", Mesh: engine.OutOfMesh, Enrolled: true},
		{Name: "in/sidecar", Sidecar: "istio-proxy"},
		{Name: "in/critical", Critical: true},
		{Name: "in/host", HostNetwork: true, Mesh: engine.OutOfMesh},
		{Name: "out/enrolled", Enrolled: true},
		{Name: "out/yes", Mesh: engine.InMesh},
		{Name: "quiet/enrolled", Enrolled: true},
		{Name: "quiet/yes", Mesh: engine.InMesh},
		{Name: "both/plain", OtherMesh: "istio ambient", Enrolled: true},
		{Name: "both/none"}, // istio.io/dataplane-mode: none
		{Name: "unknown/enrolled", Enrolled: true},
	}
	for i := range pods {
		pods[i].Known, pods[i].Addresses = true, []netip.Addr{netip.MustParseAddr("10.0.0.1")}
	}
	pods = append(pods, engine.WorkloadView{Name: "out/by-hand", Enrolled: true})
	want := cni.Decisions{
		"in": {Verdict: cni.Mesh}, "out": {Verdict: cni.Off}, "both": {Verdict: cni.OtherMesh},
		"in/no": {Verdict: cni.Off, UID: "u"}, "in/sidecar": {Verdict: cni.Ineligible},
		"in/critical": {Verdict: cni.Mesh, Critical: true}, "out/yes": {Verdict: cni.Mesh}, "quiet/yes": {Verdict: cni.Mesh},
		"both/none": {Verdict: cni.Mesh},
	}
	if diff := cmp.Diff(want, decide(namespaces, pods)); diff != "" {
		t.Error(diff)
	}
	names := func(views []engine.WorkloadView) (all []string) {
		for _, v := range views {
			all = append(all, v.Name)
		}
		return all
	}
	w := work(namespaces, pods)
	if diff := cmp.Diff([]string{"in/plain", "in/critical", "out/yes", "quiet/yes", "both/none"}, names(w.enrol)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"in/no", "out/enrolled", "quiet/enrolled", "both/plain"}, names(w.withdraw)); diff != "" {
		t.Error(diff)
	}
}
