// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"math"
	"net/netip"
	"strings"
	"testing"

	"github.com/evenkeel/evenkeel/bpf"
)

// These tests connect real sockets: what the engine wrote is read by the programs of the data plane, in the kernel.

var (
	dial4  = netip.MustParseAddrPort("10.96.0.1:53")
	dial6  = netip.MustParseAddrPort("[fd00:96::1]:53")
	podIP4 = netip.MustParseAddr("10.9.0.1")
	podIP6 = netip.MustParseAddr("fd00:9::1")
)

// mustServe returns an engine over p, and a function that makes svc with endpoints what it serves.
func mustServe(t *testing.T, p *plane) (*Engine, func(svc *Service, endpoints ...Endpoint)) {
	t.Helper()
	o := testOptions(t, p.MeshMaps)
	o.Publisher, o.DestroyUDP = bpf.NewPublisher(p.Publish, testEpoch), p.DestroyUdp
	e, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Apply(t.Context(), "test", Change{
		Nodes:  map[string]*Node{"here": {Name: "here", Zone: "a"}},
		Synced: everyKind,
	}); err != nil {
		t.Fatal(err)
	}
	return e, func(svc *Service, endpoints ...Endpoint) {
		t.Helper()
		if err := e.Apply(t.Context(), "test", serviceChange(svc, endpoints)); err != nil {
			t.Fatal(err)
		}
	}
}

// serviceChange is a change that makes svc have these endpoints, whatever their family.
func serviceChange(svc *Service, endpoints []Endpoint) Change {
	c := emptyChange()
	c.Services[svc.Name] = svc
	for _, v4 := range []bool{true, false} {
		s := &Slice{Name: fmt.Sprintf("%s-%v", svc.Name, v4), Service: svc.Name}
		for _, p := range svc.Ports {
			s.Ports = append(s.Ports, SlicePort{Name: p.Name, Protocol: p.Protocol, Port: 5353})
		}
		for _, e := range endpoints {
			if e.Address.Is4() == v4 {
				s.Endpoints = append(s.Endpoints, e)
			}
		}
		c.Slices[s.Name] = s
	}
	return c
}

func dns() *Service {
	return &Service{
		Name: "kube-system/dns", Addresses: []netip.Addr{dial4.Addr(), dial6.Addr()},
		Ports: []ServicePort{{Name: "dns", Protocol: UDP, Port: 53}},
	}
}

// ready returns a ready endpoint of each family whose addresses end in n.
func ready(n int, weight uint32, change ...func(*Endpoint)) []Endpoint {
	both := []Endpoint{
		{Address: netip.AddrFrom4([4]byte{10, 1, byte(n >> 8), byte(n)})},
		{Address: netip.MustParseAddr(fmt.Sprintf("fd01::%x", n))},
	}
	for i := range both {
		both[i].Weight, both[i].Ready, both[i].Serving = weight, true, true
		for _, f := range change {
			f(&both[i])
		}
	}
	return both
}

func number(a netip.Addr) int {
	b := a.As16()
	return int(b[14])<<8 | int(b[15])
}

// mustMatch fails unless the endpoints that draw gets to, by that many connections, agree with weights (by number of
// endpoint) at a significance of 0.001. One fair sample in 1,000 does not, by chance: it is not the verdict, one ten times
// as large is, because a bias grows with the sample and chance does not. A fair case fails once in 10^6.
func mustMatch(t *testing.T, times int, draw func(times int) map[netip.AddrPort]int, weights map[int]uint32) {
	t.Helper()
	// The quantiles of 0.999 and of 1 - 10^-9: beyond that there is nothing left to ask.
	const significant, certain = 3.09, 6.0
	z, got := deviation(t, draw(times), weights)
	if z > significant && z < certain {
		z, got = deviation(t, draw(10*times), weights)
	}
	if z > significant {
		t.Errorf("%v with weights %v: p < 0.001, chi-square is %.1f standard deviations off", got, weights, z)
	}
}

// deviation is how many standard deviations the chi-square of peers against weights is above what is expected. It fails
// where a peer is no endpoint. Wilson and Hilferty (1931): the cube root of chi-square by degrees is nearly normal.
func deviation(t *testing.T, peers map[netip.AddrPort]int, weights map[int]uint32) (z float64, got map[int]int) {
	t.Helper()
	total, sum := 0, uint64(0)
	got = make(map[int]int)
	for peer, n := range peers {
		if weights[number(peer.Addr())] == 0 || peer.Port() != 5353 {
			t.Fatalf("%d connections got to %s, want none", n, peer)
		}
		got[number(peer.Addr())] += n
		total += n
	}
	for _, w := range weights {
		sum += uint64(w)
	}
	chi, degrees := 0.0, -1.0
	for number, w := range weights {
		if w > 0 {
			want := float64(total) * float64(w) / float64(sum)
			chi += (float64(got[number]) - want) * (float64(got[number]) - want) / want
			degrees++
		}
	}
	if degrees < 1 {
		return 0, got
	}
	v := 2 / (9 * degrees)
	return (math.Cbrt(chi/degrees) - (1 - v)) / math.Sqrt(v), got
}

// Promise: connections are spread by weight. A build that ignores weights must be caught.
func TestConnectionsFollowWeights(t *testing.T) {
	p := mustPlane(t)
	pod := p.mustPod(t, "web/client", podIP4, podIP6)
	_, serve := mustServe(t, p)
	caught := false
	for _, weights := range []map[int]uint32{
		{1: 1, 2: 1, 3: 1},
		{1: 1, 2: 2, 3: 7, 4: 0},
		{1: 90, 2: 10},
		{1: 4_000_000, 2: 3_000_001},
	} {
		var endpoints []Endpoint
		for n, w := range weights {
			endpoints = append(endpoints, ready(n, w)...)
		}
		serve(dns(), endpoints...)
		for _, to := range []netip.AddrPort{dial4, dial6} {
			draw := func(times int) map[netip.AddrPort]int {
				a := pod.do(order{Dial: to, Times: times})
				if a.Refused > 0 {
					t.Fatalf("%d connections to %s were refused", a.Refused, to)
				}
				return a.Peers
			}
			if ignoreWeights {
				n := draw(10_000)[netip.AddrPortFrom(netip.MustParseAddr("10.1.0.2"), 5353)]
				caught = caught || weights[2] == 10 && n > 2_000
				continue
			}
			mustMatch(t, 10_000, draw, weights)
		}
	}
	if ignoreWeights && !caught {
		t.Fatal("the build that ignores weights was not caught")
	}
}

// Promise: near endpoints are used while there are any, and it is said why.
func TestConnectionsStayNear(t *testing.T) {
	p := mustPlane(t)
	pod := p.mustPod(t, "web/client", podIP4, podIP6)
	e, serve := mustServe(t, p)
	hints := func(node, zone string) func(*Endpoint) {
		return func(e *Endpoint) { e.Hints = &Hints{Nodes: []string{node}, Zones: []string{zone}} }
	}
	draining := func(e *Endpoint) { e.Ready, e.Terminating = false, true }
	near := dns()
	near.Distribution = SameNode
	for _, step := range []struct {
		level     string
		endpoints [][]Endpoint
		want      map[int]uint32
	}{
		{"node", [][]Endpoint{ready(1, 1, hints("here", "a")), ready(2, 1, hints("there", "a")),
			ready(3, 1, hints("there", "b"))}, map[int]uint32{1: 1}},
		{"zone", [][]Endpoint{ready(2, 1, hints("there", "a")), ready(4, 1, hints("there", "a")),
			ready(3, 1, hints("there", "b"))}, map[int]uint32{2: 1, 4: 1}},
		{"ready", [][]Endpoint{ready(3, 1, hints("there", "b")), ready(5, 1, hints("there", "b")),
			ready(6, 1, draining)}, map[int]uint32{3: 1, 5: 1}},
		{"ready", [][]Endpoint{ready(1, 1, hints("here", "a")), ready(3, 1)}, map[int]uint32{1: 1, 3: 1}},
		{"serving", [][]Endpoint{ready(6, 1, draining), ready(7, 1, draining)}, map[int]uint32{6: 1, 7: 1}},
	} {
		serve(near, flat(step.endpoints)...)
		mustMatch(t, 4_000, func(times int) map[netip.AddrPort]int {
			return pod.do(order{Dial: dial4, Times: times}).Peers
		}, step.want)
		x, err := e.Explain("web/client", "kube-system/dns", 53, UDP)
		if err != nil {
			t.Fatal(err)
		}
		if x.Outcome != OutcomeSelected || x.Ports[0].Level != step.level || len(x.Ports[0].Endpoints) != len(step.want) {
			t.Errorf("explained as %+v, want level %s and endpoints %v", x, step.level, step.want)
		}
	}
}

func flat(lists [][]Endpoint) (all []Endpoint) {
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}

// mustGiven is the endpoint that a pod's next connection to dial4 is said to get.
func mustGiven(t *testing.T, e *Engine, pod string) netip.AddrPort {
	t.Helper()
	x, err := e.Explain(pod, dns().Name, dial4.Port(), UDP)
	if err != nil || x.Outcome != OutcomeSelected {
		t.Fatalf("explained as %+v, %v", x, err)
	}
	for _, port := range x.Ports {
		if port.Address == dial4 {
			return port.Given
		}
	}
	t.Fatalf("%s is not explained: %+v", dial4, x)
	return netip.AddrPort{}
}

func only(t *testing.T, peers map[netip.AddrPort]int) int {
	t.Helper()
	if len(peers) != 1 {
		t.Fatalf("connections got to %v, want one endpoint", peers)
	}
	for peer := range peers {
		return number(peer.Addr())
	}
	return 0
}

// Promise: a consistent hash leads where the published function says, on every node.
func TestConnectionsFollowConsistentHash(t *testing.T) {
	p := mustPlane(t)
	e, serve := mustServe(t, p)
	hashed := dns()
	hashed.ConsistentHash = true
	var endpoints []Endpoint
	var addresses []bpf.MeshAddress
	var ports []uint16
	var weights []uint32
	for n := 1; n <= 20; n++ {
		endpoints = append(endpoints, ready(n, uint32(n))...)
		addresses = append(addresses, bpf.AddressOf(ready(n, 1)[0].Address))
		ports, weights = append(ports, 5353), append(weights, uint32(n))
	}
	if ignoreWeights {
		for i := range weights {
			weights[i] = 1
		}
	}
	serve(hashed, endpoints...)
	table := maglev(addresses, ports, weights)
	for i := range 5 {
		ip := netip.AddrFrom4([4]byte{10, 9, 1, byte(i)})
		pod := p.mustPod(t, fmt.Sprintf("web/client-%d", i), ip, podIP6)
		want := int(table[bpf.AddressOf(ip).Hash()%maglevSize]) + 1
		if got := only(t, pod.do(order{Dial: dial4, Times: 200}).Peers); got != want {
			t.Errorf("pod %s got to endpoint %d, want %d", ip, got, want)
		}
		if got := mustGiven(t, e, fmt.Sprintf("web/client-%d", i)); number(got.Addr()) != want {
			t.Errorf("pod %s is to be given %s, want %d", ip, got, want)
		}
	}
}

// Promise: what is refused is refused at once and explained; what is no service is left alone.
func TestConnectionsRefused(t *testing.T) {
	p := mustPlane(t)
	pod := p.mustPod(t, "web/client", podIP4, podIP6)
	e, serve := mustServe(t, p)
	serve(dns(), ready(1, 1)...)
	refused := func(why string, to netip.AddrPort) {
		t.Helper()
		if a := pod.do(order{Dial: to, Times: 10}); a.Refused != 10 {
			t.Errorf("%s: %d of 10 connections were refused, others got to %v", why, a.Refused, a.Peers)
		}
		x, err := e.Explain("web/client", "kube-system/dns", to.Port(), UDP)
		if err != nil || x.Outcome != OutcomeRefused || !strings.Contains(x.Reason, why) {
			t.Errorf("%s is explained as %+v, %v", why, x, err)
		}
	}
	passes := func(to netip.AddrPort) {
		t.Helper()
		if a := pod.do(order{Dial: to, Times: 10}); a.Peers[to] != 10 {
			t.Errorf("connections to %s got to %v, %d were refused", to, a.Peers, a.Refused)
		}
	}
	refused("refused_no_port", netip.AddrPortFrom(dial4.Addr(), 54))
	passes(netip.MustParseAddrPort("10.96.0.2:53"))
	checkUnknown(t, e)

	serve(dns())
	refused("none is of the address", dial4)
	serve(dns(), ready(1, 0)...)
	refused("weight 0", dial4)
	serve(dns(), ready(1, 1, func(e *Endpoint) { e.Ready = false })...)
	refused("none of", dial4)
	local := dns()
	local.LocalOnly = true
	serve(local, ready(1, 1, func(e *Endpoint) { e.Node = "there" })...)
	refused("run elsewhere", dial4)
	serve(local, append(ready(1, 1, func(e *Endpoint) { e.Node = "there" }),
		ready(2, 1, func(e *Endpoint) { e.Node = "here" })...)...)
	if got := only(t, pod.do(order{Dial: dial4, Times: 100}).Peers); got != 2 {
		t.Errorf("got to endpoint %d, want 2, the one on this node", got)
	}

	if err := e.Apply(t.Context(), "test", Change{Services: map[string]*Service{dns().Name: nil}}); err != nil {
		t.Fatal(err)
	}
	passes(dial4)
}

// checkUnknown asks about names that nobody has heard of, and about pods of others.
func checkUnknown(t *testing.T, e *Engine) {
	t.Helper()
	err := e.Apply(t.Context(), "test", Change{
		Workloads: map[string]*Workload{
			"web/there": {Name: "web/there", Node: "there"}, "web/idle": {Name: "web/idle", Node: "here"},
		},
		Services: map[string]*Service{"web/alias": {Name: "web/alias", ExternalName: "example.org"},
			"web/headless": {Name: "web/headless"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ workload, service, outcome, why string }{
		{"web/typo", "kube-system/dns", OutcomeUnknown, "no source has a pod of that name"},
		{"web/there", "kube-system/dns", OutcomeUnknown, "not of this node, here"},
		{"web/idle", "kube-system/dns", OutcomePassed, "not enrolled"},
		{"web/client", "kube-system/typo", OutcomeUnknown, "no source has a service"},
		{"web/client", "web/alias", OutcomePassed, "another name (ExternalName) for example.org"},
		{"web/client", "web/headless", OutcomePassed, "headless"},
	} {
		x, err := e.Explain(test.workload, test.service, 53, UDP)
		if err != nil || x.Outcome != test.outcome || !strings.Contains(x.Reason, test.why) {
			t.Errorf("%s to %s is explained as %+v, %v, want %s: %s", test.workload, test.service, x, err, test.outcome, test.why)
		}
	}
}
