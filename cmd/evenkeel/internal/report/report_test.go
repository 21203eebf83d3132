// SPDX-License-Identifier: Apache-2.0

package report

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/evenkeel/evenkeel/bpf"
	"github.com/evenkeel/evenkeel/engine"
	"github.com/evenkeel/evenkeel/engine/enrol"
	"github.com/evenkeel/evenkeel/upgrade"
)

func TestParseQuestion(t *testing.T) {
	want := Question{Workload: "a/b", Service: "web", Port: 53, Protocol: engine.UDP}
	if q, err := ParseQuestion("a/b", "web", "53", "UDP"); err != nil || q != want {
		t.Errorf("%+v, %v", q, err)
	}
	for _, wrong := range [][4]string{
		{"b", "web", "53", ""}, {"/b", "web", "53", ""}, {"a/", "web", "53", ""}, {"a/b", "", "53", ""},
		{"a/b", "web", "", ""}, {"a/b", "web", "0", ""}, {"a/b", "web", "65536", ""}, {"a/b", "web", "+5", ""},
		{"a/b", "web", "53", "sctp"},
	} {
		if q, err := ParseQuestion(wrong[0], wrong[1], wrong[2], wrong[3]); err == nil {
			t.Errorf("%q: %+v", wrong, q)
		}
	}
}

// FuzzParseQuestion: a question that is accepted is the same after it was sent.
func FuzzParseQuestion(f *testing.F) {
	f.Add("a/b", "web", "80", "tcp")
	f.Add("a/b", "fd00::1", "65535", "UDP")
	f.Add("a/b/c", "x&y=z", "1", "")
	f.Fuzz(func(t *testing.T, workload, service, port, protocol string) {
		q, err := ParseQuestion(workload, service, port, protocol)
		if err != nil {
			return
		}
		v := q.Values()
		again, err := ParseQuestion(v.Get("workload"), v.Get("service"), v.Get("port"), v.Get("protocol"))
		if err != nil || again != q {
			t.Errorf("%+v, then %+v, %v", q, again, err)
		}
	})
}

func TestGenerationOf(t *testing.T) {
	plain := upgrade.Word(0).WithFloor(1).WithServe(2)
	canary := plain.WithCanary(3, 41)
	for name, test := range map[string]struct {
		word   upgrade.Word
		chosen bool
		want   [3]uint16
	}{
		"plain":                   {plain, false, [3]uint16{2, 0, 0}},
		"chosen without a canary": {plain, true, [3]uint16{2, 0, 0}},
		"canary":                  {canary, false, [3]uint16{2, 3, 41}},
		"chosen":                  {canary, true, [3]uint16{3, 0, 0}},
	} {
		g, c, s := generationOf(test.word, test.chosen)
		if got := [3]uint16{g, c, s}; got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

func TestReasonOfAWorkload(t *testing.T) {
	tests := []struct {
		view engine.WorkloadView
		code string
		in   string
	}{
		{engine.WorkloadView{Name: "a/b", Enrolled: true}, "", ""},
		{engine.WorkloadView{Name: "a/b"}, "not-enrolled", "nobody"},
		{engine.WorkloadView{Name: "a/b", HostNetwork: true}, string(enrol.HostNetwork), "host network"},
		{engine.WorkloadView{Name: "a/b", Sidecar: "linkerd-proxy"}, string(enrol.Sidecar), "linkerd-proxy"},
		{engine.WorkloadView{Name: "a/b", OtherMesh: "kmesh"}, string(enrol.OtherMesh), "kmesh"},
		{engine.WorkloadView{Name: "a/b", Enrolled: true, Sidecar: "istio-proxy"}, string(enrol.Sidecar), "evenkeel withdraw"},
	}
	for _, test := range tests {
		w := workloadOf(test.view)
		if w.Code != test.code || !strings.Contains(w.Reason, test.in) || w.Addresses == nil {
			t.Errorf("%+v, want code %q and %q", w, test.code, test.in)
		}
	}
}

func TestNamesOfFlows(t *testing.T) {
	record := func(service, endpoint uint32) bpf.MeshFlowRecord {
		r := bpf.MeshFlowRecord{}
		r.Flow.Connection.Service, r.Flow.ServiceIncarnation = service, 5
		r.Flow.Connection.Endpoint = bpf.EndpointRef(endpoint, 6)
		return r
	}
	f := &Flows{}
	for _, r := range []bpf.MeshFlowRecord{record(1, 2), record(1, 3), record(9, 2)} {
		flow := flowOf(r, enrol.Workload{}, time.Time{})
		f.Flows = append(f.Flows, flow)
	}
	services, endpoints := f.Refs()
	if diff := cmp.Diff([]string{"1.5", "9.5"}, services) + cmp.Diff([]string{"2.6", "3.6"}, endpoints); diff != "" {
		t.Error(diff)
	}
	names := NewNames()
	names.Services["1.5"], names.Endpoints["3.6"] = "default/web", "default/web-0"
	f.Name(names)
	if f.Flows[0].Service != "default/web" || f.Flows[1].Endpoint != "default/web-0" || f.Flows[2].Service != "" {
		t.Errorf("%+v", f.Flows)
	}
}
