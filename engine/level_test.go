// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/evenkeel/evenkeel/bpf"
)

// The rules of trafficDistribution, internalTrafficPolicy and terminating endpoints, case by case.
func TestLevels(t *testing.T) {
	const out = nowhere
	type e = Endpoint
	hinted := func(node, zone string) e {
		x := e{Ready: true, Serving: true, Hints: &Hints{}}
		if node != "" {
			x.Hints.Nodes = []string{node}
		}
		if zone != "" {
			x.Hints.Zones = []string{"elsewhere", zone}
		}
		return x
	}
	draining := e{Serving: true, Terminating: true}
	for _, c := range []struct {
		name      string
		service   Service
		zone      string
		endpoints []e
		want      []int8
	}{
		{"no preference", Service{}, "a", []e{hinted("here", "a"), hinted("", "")}, []int8{levelReady, levelReady}},
		{"node, then zone, then the rest", Service{Distribution: SameNode}, "a",
			[]e{hinted("here", "a"), hinted("there", "a"), hinted("there", "b")}, []int8{levelNode, levelZone, levelReady}},
		{"one without node hints", Service{Distribution: SameNode}, "a",
			[]e{hinted("here", "a"), hinted("", "b")}, []int8{levelZone, levelReady}},
		{"one without any", Service{Distribution: SameNode}, "a",
			[]e{hinted("here", "a"), hinted("", "")}, []int8{levelReady, levelReady}},
		{"one that is not ready need not have hints", Service{Distribution: SameZone}, "a",
			[]e{hinted("", "a"), draining, {}}, []int8{levelZone, levelServing, out}},
		{"zone ignores node hints", Service{Distribution: SameZone}, "a",
			[]e{hinted("here", "b"), hinted("there", "a")}, []int8{levelReady, levelZone}},
		{"zone unknown", Service{Distribution: SameZone}, "",
			[]e{hinted("", "a"), hinted("", "b")}, []int8{levelReady, levelReady}},
		{"local only", Service{LocalOnly: true, Distribution: SameNode}, "a",
			[]e{{Node: "here", Ready: true}, {Node: "there", Ready: true}, {Node: "here", Serving: true, Terminating: true},
				{Node: "there", Serving: true, Terminating: true}}, []int8{levelNode, out, levelServing, out}},
		{"ready though terminating", Service{}, "", []e{{Ready: true, Terminating: true}}, []int8{levelReady}},
		{"serving but not terminating", Service{}, "", []e{{Serving: true}}, []int8{out}},
		{"terminating and not serving", Service{}, "", []e{{Terminating: true}}, []int8{out}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, ranked(t, &c.service, c.zone, c.endpoints)); diff != "" {
				t.Errorf("levels (-want +got):\n%s", diff)
			}
		})
	}
}

// A pod's address is given to the next one while the first is still on its way out, and an endpoint is in two slices while
// it moves: which of two says so last must not hide that it is ready.
func TestOneAddressTwice(t *testing.T) {
	at := netip.MustParseAddr("10.0.0.1")
	old, draining := Endpoint{Address: at, Workload: "old"}, Endpoint{Address: at, Serving: true, Terminating: true, Workload: "drains"}
	ready, other := Endpoint{Address: at, Ready: true, Workload: "new"}, Endpoint{Address: at, Ready: true, Workload: "newer"}
	port := ServicePort{Name: "p", Protocol: TCP, Port: 80}
	for _, c := range []struct {
		what  string
		lists [][]Endpoint
		want  string
	}{
		{"ready, then not", [][]Endpoint{{ready}, {old}}, "new"},
		{"not, then ready", [][]Endpoint{{old}, {ready}}, "new"},
		{"in one slice", [][]Endpoint{{ready, old, draining}}, "new"},
		{"drains, then not", [][]Endpoint{{draining}, {old}}, "drains"},
		{"of two that are ready the last", [][]Endpoint{{ready}, {other}, {draining}}, "newer"},
	} {
		s := &service{spec: &Service{Ports: []ServicePort{port}}}
		for _, list := range c.lists {
			s.slices = append(s.slices, &Slice{Endpoints: list, Ports: []SlicePort{{Name: "p", Protocol: TCP, Port: 8080}}})
		}
		w := newWants()
		w.gather(s, &port, true, &desired{})
		if len(w.list) != 1 || w.list[0].of.Workload != c.want {
			t.Errorf("%s: %+v, want %s", c.what, w.list, c.want)
		}
		r := &record{address: bpf.AddressOf(at), port: 8080}
		if shown := s.endpoint(&port, r); shown == nil || shown.Workload != c.want {
			t.Errorf("%s: shown as %+v, want %s", c.what, shown, c.want)
		}
	}
}

// ranked returns the levels that endpoints have on node "here" in a zone.
func ranked(t *testing.T, s *Service, zone string, endpoints []Endpoint) (got []int8) {
	t.Helper()
	for i := range endpoints {
		endpoints[i].Address = netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)})
	}
	var list []want
	for i := range endpoints {
		list = append(list, want{weight: 1, of: &endpoints[i]})
	}
	rank(list, s, "here", zone)
	for i := range list {
		got = append(got, list[i].level)
	}
	return got
}
