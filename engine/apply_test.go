// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/evenkeel/evenkeel/bpf"
)

// Promise: of a key that two sources have the higher wins, whole; the lower's comes back when the higher deletes it.
func TestHigherSourceWins(t *testing.T) {
	m := newModel(roomy())
	e := modelEngine(t, m)
	mustApply(t, e, "low", serviceChange(dns(), ready(1, 1)))
	over := serviceChange(dns(), ready(2, 1))
	over.Services = nil
	mustApply(t, e, "high", over)
	if got := fmt.Sprint(m.numbers(key4)); got != "map[2:1]" {
		t.Errorf("slots are %s, want the higher source's", got)
	}
	mustApply(t, e, "low", serviceChange(dns(), ready(3, 1)))
	if got := fmt.Sprint(m.numbers(key4)); got != "map[2:1]" {
		t.Errorf("slots are %s, want the higher source's still", got)
	}
	for name := range over.Slices {
		over.Slices[name] = nil
	}
	mustApply(t, e, "high", over)
	if got := fmt.Sprint(m.numbers(key4)); got != "map[3:1]" {
		t.Errorf("slots are %s, want what the lower said last", got)
	}
	m.check(t, e)
	if err := e.Apply(t.Context(), "nobody", Change{}); err == nil || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("a source that was not announced: %v", err)
	}
}

// Promise: what is there first keeps its address, the error names both, and the other gets it when it is given up.
func TestAddressConflict(t *testing.T) {
	m := newModel(roomy())
	e := modelEngine(t, m)
	mustApply(t, e, "low", serviceChange(dns(), ready(1, 1)))
	other := dns()
	other.Name, other.Origin = "aaa/first-by-name", "other.yaml:3"
	err := e.Apply(t.Context(), "high", serviceChange(other, ready(2, 1)))
	var object *ObjectError
	if !errors.As(err, &object) || !errors.Is(err, ErrConflict) || object.Name != other.Name ||
		!strings.Contains(err.Error(), dns().Name) || !strings.Contains(err.Error(), "other.yaml:3") {
		t.Errorf("error is %v", err)
	}
	if got := fmt.Sprint(m.numbers(key4)); got != "map[1:1]" {
		t.Errorf("slots are %s", got)
	}
	if got := e.Stats().Pending; got != 1 {
		t.Errorf("%d pending, want 1", got)
	}
	m.kept = map[key][]kept{key4: nil}
	mustApply(t, e, "low", Change{Services: map[string]*Service{dns().Name: nil}})
	if got := fmt.Sprint(m.numbers(key4)); got != "map[2:1]" || e.Stats().Pending != 0 {
		t.Errorf("slots are %s, %d pending", got, e.Stats().Pending)
	}
	m.check(t, e)
}

// Promise: an address is its service's though that has no port which could be served: it is refused, as a port that is
// missing is, until the service gives the address up; what is served at it meanwhile is nobody else's business.
func TestServiceWithoutPortsKeepsItsAddress(t *testing.T) {
	m := newModel(capacity{ids: 4, services: 20, slots: 64, endpoints: 40})
	e := modelEngine(t, m)
	mustApply(t, e, "low", Change{Synced: everyKind})
	mustApply(t, e, "high", Change{Synced: everyKind})
	bare, guard := dns(), key{Address: key4.Address}
	bare.Ports = nil
	guarded := func() bool { _, ok := m.ids[guard]; return ok }
	mustApply(t, e, "low", serviceChange(bare, nil))
	if !guarded() || len(m.ids) != len(bare.Addresses) {
		t.Fatalf("keys are %v, want one of each address of %v", m.ids, bare.Addresses)
	}
	mustApply(t, e, "low", serviceChange(dns(), ready(1, 1)))
	if got := fmt.Sprint(m.numbers(key4)); !guarded() || got != "map[1:1]" {
		t.Errorf("with a port: guarded %v, slots are %s", guarded(), got)
	}
	mustApply(t, e, "low", serviceChange(bare, nil))
	if !guarded() || len(m.ids) != len(bare.Addresses) {
		t.Errorf("without it again: keys are %v", m.ids)
	}

	again := modelEngine(t, m) // another process finds it, and leaves it
	before := m.writes
	if views := again.Services(); len(views) != len(bare.Addresses) || views[0].Name != "" {
		t.Errorf("found are %+v", views)
	}
	all := serviceChange(bare, nil)
	all.Synced = everyKind
	mustApply(t, again, "low", all)
	mustApply(t, again, "high", Change{Synced: everyKind})
	if m.writes != before || !guarded() {
		t.Errorf("%d writes after a restart, guarded %v", m.writes-before, guarded())
	}

	more := dns()
	more.Name, more.Ports = "kube-system/more", nil
	more.Addresses = []netip.Addr{netip.MustParseAddr("10.96.0.77"), netip.MustParseAddr("fd00:96::77")}
	mustApply(t, again, "low", serviceChange(more, nil))
	last := dns()
	last.Name, last.Ports, last.Addresses = "kube-system/last", nil, []netip.Addr{netip.MustParseAddr("10.96.0.79")}
	var object *ObjectError
	err := again.Apply(t.Context(), "low", serviceChange(last, nil))
	if !errors.Is(err, ErrFull) || !errors.As(err, &object) || object.Map != "service_ids" || object.Name != last.Name {
		t.Errorf("%d of %d keys, error is %v", len(m.ids), m.size.ids, err)
	}
	mustApply(t, again, "low", Change{Services: map[string]*Service{more.Name: nil}})
	if _, there := m.ids[key{Address: bpf.AddressOf(last.Addresses[0])}]; !there || again.Stats().Pending != 0 {
		t.Errorf("there is room, but keys are %v", m.ids)
	}
	for _, name := range []string{bare.Name, more.Name, last.Name} {
		mustApply(t, again, "low", Change{Services: map[string]*Service{name: nil}})
	}
	if len(m.ids) != 0 {
		t.Errorf("keys are left: %v", m.ids)
	}
	m.check(t, again)
}

// Promise: what does not fit is named with its map and flag, costs nothing that is served, and is served when there is
// room.
func TestFullMapIsNamedAndRetried(t *testing.T) {
	for mapName, size := range map[string]capacity{
		"endpoints":   {ids: 40, services: 20, slots: 64, endpoints: 5},
		"services":    {ids: 40, services: 3, slots: 64, endpoints: 40},
		"service_ids": {ids: 5, services: 20, slots: 64, endpoints: 40},
		"slots":       {ids: 40, services: 20, slots: 7, endpoints: 40},
	} {
		t.Run(mapName, func(t *testing.T) {
			m := newModel(size)
			e := modelEngine(t, m)
			mustApply(t, e, "low", serviceChange(dns(), append(ready(1, 1), ready(4, 1)...)))
			want := m.normal()
			second := dns()
			second.Name, second.Origin = "kube-system/second", "second.yaml:9"
			second.Addresses = []netip.Addr{netip.MustParseAddr("10.96.0.9"), netip.MustParseAddr("fd00:96::9")}
			err := e.Apply(t.Context(), "low", serviceChange(second, append(ready(2, 1), ready(3, 1)...)))
			var object *ObjectError
			if !errors.As(err, &object) || !errors.Is(err, ErrFull) || object.Map != mapName ||
				object.Flag != bpf.Flag(mapName) || object.Name != second.Name || object.Origin != second.Origin {
				t.Fatalf("error is %v: %+v", err, object)
			}
			for _, word := range []string{mapName, bpf.Flag(mapName), second.Name, second.Origin} {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("error %q does not say %q", err, word)
				}
			}
			for k, v := range want {
				if got := m.normal()[k]; fmt.Sprint(got) != fmt.Sprint(v) {
					t.Errorf("%s is served as %v, was %v", k, got, v)
				}
			}
			if problems := e.Services()[1].Problems; len(problems) == 0 {
				t.Error("the view of the service does not say that it is not served whole")
			}
			mustApply(t, e, "low", Change{Services: map[string]*Service{dns().Name: nil}})
			if got := e.Stats().Pending; got != 0 {
				t.Errorf("%d pending though there is room: %v", got, e.Services())
			}
			k := key4
			k.Address = bpf.AddressOf(second.Addresses[0])
			if got := fmt.Sprint(m.numbers(k)); got != "map[2:1 3:1]" {
				t.Errorf("slots of the second are %s", got)
			}
			m.check(t, e)
		})
	}
}

// Promise: an object that cannot be is named with the reason, and what was known of it goes on.
func TestInvalidObjects(t *testing.T) {
	with := func(change func(*Service)) Change {
		s := dns()
		s.Origin = "dns.yaml:7"
		change(s)
		return serviceChange(s, ready(1, 1))
	}
	for reason, c := range map[string]Change{
		"number 0":               with(func(s *Service) { s.Ports[0].Port = 0 }),
		"there twice":            with(func(s *Service) { s.Ports = append(s.Ports, s.Ports[0]) }),
		"neither TCP nor UDP":    with(func(s *Service) { s.Ports[0].Protocol = 132 }),
		"address 0.0.0.0":        with(func(s *Service) { s.Addresses[0] = netip.IPv4Unspecified() }),
		"address invalid IP":     with(func(s *Service) { s.Addresses[0] = netip.Addr{} }),
		"address fe80::1%eth0":   with(func(s *Service) { s.Addresses[1] = netip.MustParseAddr("fe80::1%eth0") }),
		"two addresses":          with(func(s *Service) { s.Addresses[1] = netip.MustParseAddr("10.96.0.2") }),
		"affinity of -1s":        with(func(s *Service) { s.Affinity = -time.Second }),
		"endpoint 0: address ff": serviceChange(dns(), []Endpoint{{Address: netip.MustParseAddr("ff02::1")}}),
	} {
		t.Run(reason, func(t *testing.T) {
			m := newModel(roomy())
			e := modelEngine(t, m)
			mustApply(t, e, "low", serviceChange(dns(), ready(1, 1)))
			c.Slices = map[string]*Slice{}
			if strings.HasPrefix(reason, "endpoint") {
				c = Change{Slices: serviceChange(dns(), append([]Endpoint{{Address: netip.MustParseAddr("ff02::1")}},
					ready(1, 1)...)).Slices}
			}
			err := e.Apply(t.Context(), "low", c)
			var object *ObjectError
			if !errors.As(err, &object) || !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), reason) ||
				!strings.Contains(err.Error(), object.Origin) || !strings.Contains(object.Name, dns().Name) {
				t.Errorf("error is %v", err)
			}
			if got := fmt.Sprint(m.numbers(key4)); got != "map[1:1]" {
				t.Errorf("slots are %s", got)
			}
			if s := e.Stats(); s.Failed != 1 || !strings.Contains(s.LastError, reason) {
				t.Errorf("stats are %+v", s)
			}
		})
	}
}

// Views say what is served by names, and are JSON.
func TestViews(t *testing.T) {
	maps := mustMaps(t)
	e := mustEngine(t, maps)
	sticky := dns()
	sticky.Affinity, sticky.Origin = time.Minute, "dns.yaml:1"
	c := serviceChange(sticky, ready(1, 3, func(e *Endpoint) {
		e.Workload, e.Node, e.Zone = "kube-system/coredns-1", "there", "b"
	}))
	c.Workloads = map[string]*Workload{
		"web/client": {Name: "web/client", Node: "here", ServiceAccount: "web", HostNetwork: true},
		"web/remote": {Name: "web/remote", Node: "there"},
	}
	c.Synced = everyKind
	mustApply(t, e, "test", c)

	services := e.Services()
	if len(services) != 1 || services[0].Name != sticky.Name || services[0].Origin != sticky.Origin ||
		len(services[0].Ports) != 2 || !services[0].Ports[0].Served || services[0].Ports[0].Level != "ready" {
		t.Fatalf("services are %+v", services)
	}
	endpoint := services[0].Ports[0].Levels[0].Endpoints[0]
	if endpoint.Workload != "kube-system/coredns-1" || endpoint.Node != "there" || endpoint.Zone != "b" ||
		!endpoint.Ready || endpoint.Address.Port() != 5353 {
		t.Errorf("endpoint is %+v", endpoint)
	}
	if _, err := json.Marshal(services); err != nil {
		t.Error(err)
	}
	workloads, err := e.Workloads()
	if err != nil || len(workloads) != 1 || workloads[0].Name != "web/client" || workloads[0].Ineligible == "" {
		t.Errorf("workloads are %+v, %v", workloads, err)
	}
	namesFollowIncarnations(t, e, sticky.Name)
	fillCounts(t, e)
}

// TestWorkloadsByCookie: what is enrolled is shown by its namespace, so that none hides another.
func TestWorkloadsByCookie(t *testing.T) {
	maps := mustMaps(t)
	p := &plane{MeshMaps: maps}
	e := mustEngine(t, maps)
	c := serviceChange(dns(), nil)
	c.Workloads = map[string]*Workload{
		"web/one": {Name: "web/one", Node: "here"}, "web/two": {Name: "web/two", Node: "here", ServiceAccount: "two"},
	}
	c.Synced = everyKind
	mustApply(t, e, "test", c)
	put := func(cookie uint64, pod string) {
		t.Helper()
		if pod != "" {
			p.putName(t, cookie, pod, fmt.Sprint("/run/netns/", cookie))
		}
		k := bpf.MeshWorkloadKey{Id: cookie, By: uint32(bpf.MeshWorkloadByWORKLOAD_BY_NETNS)}
		if err := maps.Workloads.Put(k, bpf.MeshWorkload{Netns: cookie, Incarnation: 1}); err != nil {
			t.Fatal(err)
		}
	}
	put(12, "web/two")
	put(11, "web/two")
	put(13, "web/unknown")
	put(14, "")
	p.putName(t, 15, "web/one", "/run/netns/15") // its enrolment is under way
	all, err := e.Workloads()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, w := range all {
		lines = append(lines, fmt.Sprint(w.Name, " ", w.Cookie, " ", w.Enrolled, " ", w.Namespace, " ", w.ServiceAccount))
	}
	want := []string{
		" 14 true  ", "web/one 0 false  ", "web/two 11 true /run/netns/11 two", "web/two 12 true /run/netns/12 two",
		"web/unknown 13 true /run/netns/13 ",
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("workloads (-want +got):\n%s", diff)
	}
}

func namesFollowIncarnations(t *testing.T, e *Engine, name string) {
	t.Helper()
	index, incarnation := uint32(1), uint32(1)
	service, port, ok := e.ServiceAt(index, incarnation)
	if !ok || service != name || port.Port() != 53 {
		t.Errorf("service 1.1 is %q %s %v", service, port, ok)
	}
	if _, _, ok := e.ServiceAt(index, incarnation+1); ok {
		t.Error("service 1.2 has a name before it is one")
	}
	v, ok := e.EndpointAt(bpf.EndpointRef(1, 1))
	if !ok || v.Workload != "kube-system/coredns-1" {
		t.Errorf("endpoint 1.1 is %+v %v", v, ok)
	}
	for _, ref := range []uint64{0, bpf.EndpointRef(1, 2), bpf.EndpointRef(90_000, 1), ^uint64(0)} {
		if v, ok := e.EndpointAt(ref); ok {
			t.Errorf("endpoint %x is %+v", ref, v)
		}
	}
	if _, _, ok := e.ServiceAt(^uint32(0), 1); ok {
		t.Error("a service beyond the map has a name")
	}
}

func fillCounts(t *testing.T, e *Engine) {
	t.Helper()
	fill, err := e.Fill()
	if err != nil {
		t.Fatal(err)
	}
	used := make(map[string]uint32)
	for _, f := range fill {
		used[f.Map] = f.Used
		if f.Flag == "" || f.Capacity == 0 || f.Bytes == 0 {
			t.Errorf("map %s: flag %q, capacity %d, %d bytes", f.Map, f.Flag, f.Capacity, f.Bytes)
		}
	}
	for name, want := range map[string]uint32{
		"services": 2, "endpoints": 2, "slots": 2, "service_ids": 4, "affinities": 0, "workloads": 0,
	} {
		if used[name] != want {
			t.Errorf("map %s has %d, want %d", name, used[name], want)
		}
	}
}
