// SPDX-License-Identifier: Apache-2.0

package plane

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"

	"github.com/evenkeel/evenkeel/bpf"
	"github.com/evenkeel/evenkeel/upgrade"
)

// releases are the objects of upgrade/testdata/releases: what each is, build.sh and the headers there say.
const releases = "../../../../upgrade/testdata/releases"

func release(t *testing.T, name string) upgrade.DataPlane {
	t.Helper()
	file := name
	if name == "missing" {
		file = "1"
	}
	object, err := os.ReadFile(filepath.Join(releases, file+".o"))
	must(t, err)
	if name == "missing" { // a slot of which the program is called something else
		object = bytes.ReplaceAll(object, []byte("\x00mesh_sendmsg6\x00"), []byte("\x00lost_sendmsg6\x00"))
	}
	sizes := bpf.Sizes{Services: 400, Endpoints: 100, Workloads: 10, Affinities: 1024, Peers: 1024}.MaxEntries()
	p, err := OfObject(object, sizes)
	must(t, err)
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
	must(t, err)
	p.Label = name
	for _, private := range []string{"counters_v2", "released"} {
		if spec.Maps[private] != nil {
			p.Private = append(p.Private, private)
		}
	}
	if spec.Programs["enter_release"] != nil {
		p.Hooks = append(p.Hooks, upgrade.Hook{Name: "release", Entry: "enter_release", Program: "mesh_release",
			At: upgrade.Cgroup, Attach: ebpf.AttachCgroupInetSockRelease})
	}
	return p
}

// walk goes from 1 over every ordered pair of n once and back to 1 (Hierholzer), in a random order.
func walk(n int, random *rand.Rand) []int {
	left := make(map[int][]int)
	for from := 1; from <= n; from++ {
		for _, to := range random.Perm(n) {
			if to+1 != from {
				left[from] = append(left[from], to+1)
			}
		}
	}
	var path []int
	for stack := []int{1}; len(stack) > 0; {
		at := stack[len(stack)-1]
		if next := left[at]; len(next) > 0 {
			stack, left[at] = append(stack, next[0]), next[1:]
			continue
		}
		path, stack = append(path, at), stack[:len(stack)-1]
	}
	slices.Reverse(path)
	return path
}

// affinity is what releases know of a workload and a service, whatever their layout.
type affinity struct {
	Endpoint, Seen, First, Connections uint64
}

// peerKey and peer are the same of a UDP socket.
type peerKey struct {
	Address   [16]byte
	Socket    uint64
	Port      uint16
	Direction uint16
}

type peer struct {
	Address  [16]byte
	Endpoint uint64
	Port     uint16
}

// Schemas of the releases, by number.
var (
	affinitySchema = [...]int{1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 6}
	peerSchema     = [...]int{1: 1, 2: 1, 3: 2, 4: 3, 5: 3, 6: 3}
)

func schemaName(base string, number int) string {
	if number == 1 {
		return base
	}
	return fmt.Sprintf("%s_v%d", base, number)
}

const second = uint64(time.Second)

// readAffinities reads the map of a release by the number of the service, with the offsets of its schema.
func readAffinities(t *testing.T, g *upgrade.Generation, schema int) map[uint32]affinity {
	t.Helper()
	all := make(map[uint32]affinity)
	u64, u32 := binary.LittleEndian.Uint64, binary.LittleEndian.Uint32
	each(t, g, schemaName("affinities", schema), func(key, value []byte) {
		service := u32(key[8:])
		if schema >= 4 {
			service = u32(key[12:])
		}
		var a affinity
		switch {
		case schema == 1:
			a = affinity{Endpoint: u64(value), Seen: u64(value[8:])}
		case schema == 2:
			a = affinity{u64(value), u64(value[8:]), u64(value[16:]), u64(value[24:])}
		case schema <= 5:
			a = affinity{First: u64(value), Connections: u64(value[8:]), Seen: u64(value[16:]), Endpoint: u64(value[24:])}
		default:
			a = affinity{Endpoint: u64(value), Seen: uint64(u32(value[8:])) * second, Connections: uint64(u32(value[12:]))}
		}
		all[service] = a
	})
	return all
}

// shown is what a schema has room for.
func (a affinity) shown(schema int) affinity {
	switch {
	case schema == 1:
		a.First, a.Connections = 0, 0
	case schema == 6:
		a.First, a.Seen = 0, a.Seen/second*second
	}
	return a
}

func readPeers(t *testing.T, g *upgrade.Generation, schema int) map[peerKey]peer {
	t.Helper()
	all := make(map[peerKey]peer)
	u64, u16 := binary.LittleEndian.Uint64, binary.LittleEndian.Uint16
	each(t, g, schemaName("peers", schema), func(key, value []byte) {
		k := peerKey{Address: [16]byte(key), Socket: u64(key[16:]), Port: u16(key[24:]), Direction: u16(key[26:])}
		v := peer{Address: [16]byte(value), Endpoint: u64(value[16:]), Port: u16(value[24:])}
		if schema >= 3 {
			v = peer{Address: [16]byte(value[16:]), Endpoint: u64(value[8:]), Port: u16(value[6:])}
		}
		all[k] = v
	})
	return all
}

func each(t *testing.T, g *upgrade.Generation, name string, do func(key, value []byte)) {
	t.Helper()
	m := g.Maps[name]
	if m == nil {
		t.Fatalf("generation %d has no map %s", g.Number, name)
	}
	key, value := make([]byte, m.KeySize()), make([]byte, m.ValueSize())
	it := m.Iterate()
	for it.Next(&key, &value) {
		do(key, value)
	}
	must(t, it.Err())
}

// connects is how many connections a generation has given an endpoint.
func connects(t *testing.T, g *upgrade.Generation) (sum uint64) {
	t.Helper()
	if shared := g.Maps["counters_v2"]; shared != nil {
		must(t, shared.Lookup(uint32(bpf.MeshCountCOUNT_CONNECT), &sum))
		return sum
	}
	var each []uint64
	must(t, g.Maps["counters"].Lookup(uint32(bpf.MeshCountCOUNT_CONNECT), &each))
	for _, n := range each {
		sum += n
	}
	return sum
}

// model is what the maps have to hold, kept from what applications did, and never from a map but for the time.
type model struct {
	affinities map[uint32]affinity
	peers      map[peerKey]peer
	talker     socket            // sends to services without affinity
	answers    map[uint32]string // endpoint by service
}

// Services: of those of even number some more are connected to in each release, of odd number all are sent to at first.
const (
	jumpServices = 300
	jumpPeers    = 40
)

// use connects to services that keep endpoints: to some again and to one that was never connected to.
func (m *model) use(t *testing.T, p *pod, schema, stage int, g *upgrade.Generation, random *rand.Rand) {
	t.Helper()
	var which []uint32
	for service := range m.affinities {
		if random.IntN(2) == 0 {
			which = append(which, service)
		}
	}
	which = append(which, uint32(2*(60+stage)))
	before := sinceBoot(t)
	for _, service := range which {
		got := p.connect(t, serviceAddress(service))
		if want := m.answers[service]; want != "" && got != want {
			t.Fatalf("service %d was on %s, is on %s", service, want, got)
		}
		m.answers[service] = got
	}
	after := sinceBoot(t)
	if n := connects(t, g); n != uint64(len(which)) {
		t.Errorf("%d connections were counted, %d were made", n, len(which))
	}
	found := readAffinities(t, g, schema)
	for _, service := range which {
		a, known := m.affinities[service]
		seen := found[service].Seen
		if floor := before / second * second; seen < before && schema != 6 || seen < floor || seen > after {
			t.Errorf("service %d was last seen at %d, not between %d and %d", service, seen, before, after)
		}
		if schema == 6 && a.Seen/second*second == seen { // the rest of it is put aside
			seen = a.Seen
		}
		a.Seen = seen
		if schema >= 2 {
			a.Connections++
		}
		if !known {
			a.Endpoint = uint64(1)<<32 | uint64(slices.Index(endpoints, m.answers[service])+1)
			if schema >= 2 && schema < 6 {
				a.First = seen
			}
		}
		m.affinities[service] = a
	}
}

func serviceAddress(i uint32) netip.AddrPort { return service(int(i)) }

// send asks services by one socket, so that the map of peers is filled from the second on, or asks them again.
func (m *model) send(t *testing.T) {
	t.Helper()
	for i := range uint32(jumpPeers) {
		service := 2*i + 1
		got := m.talker.ask(t, serviceAddress(service))
		if want := m.answers[service]; want != "" && got != want {
			t.Fatalf("service %d of the socket was on %s, is on %s", service, want, got)
		}
		m.answers[service] = got
	}
}

// check compares the maps of a release with the model.
func (m *model) check(t *testing.T, g *upgrade.Generation, number int) {
	t.Helper()
	want := make(map[uint32]affinity)
	for service, a := range m.affinities {
		want[service] = a.shown(affinitySchema[number])
	}
	if diff := cmp.Diff(want, readAffinities(t, g, affinitySchema[number])); diff != "" {
		t.Fatalf("affinities (-want +release %d):\n%.3000s", number, diff)
	}
	if diff := cmp.Diff(m.peers, readPeers(t, g, peerSchema[number])); diff != "" {
		t.Fatalf("peers (-want +release %d):\n%.3000s", number, diff)
	}
}

// learnPeers is what a socket that has sent to services has left: an entry there and one back for each but the first,
// of which those back are by endpoint, so the last use of one counts.
func (m *model) learnPeers(t *testing.T, g *upgrade.Generation) {
	t.Helper()
	m.peers = readPeers(t, g, 1)
	there, back := 0, make(map[[16]byte]bool)
	for k, v := range m.peers {
		address := func(a [16]byte) string { return fmt.Sprintf("%d.%d.%d.%d", a[12], a[13], a[14], a[15]) }
		switch bpf.MeshPeerDirection(k.Direction) {
		case bpf.MeshPeerDirectionPEER_ENDPOINT:
			there++
			service := uint32(k.Address[14])<<8 | uint32(k.Address[15])
			if got := address(v.Address); got != m.answers[service] {
				t.Errorf("service %d: the map has %s, %s has answered", service, got, m.answers[service])
			}
		case bpf.MeshPeerDirectionPEER_SERVICE:
			back[k.Address] = true
			service := uint32(v.Address[14])<<8 | uint32(v.Address[15])
			if got := address(k.Address); got != m.answers[service] {
				t.Errorf("endpoint %s is shown as of service %d, of which %s has answered", got, service, m.answers[service])
			}
		}
	}
	if there != jumpPeers-1 || len(back) == 0 {
		t.Errorf("%d services and %d endpoints are in the map of peers, of %d services", there, len(back), jumpPeers)
	}
}

// From every release to every other: what applications left in the maps by connecting and sending is there, in the other
// layout, and what they go on doing is as if nothing had happened.
func TestEveryJumpKeepsWhatProgramsWrote(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	p := newPod(t)
	path := walk(6, random)
	m := &model{affinities: make(map[uint32]affinity), answers: make(map[uint32]string), talker: p.socket(t)}
	defer m.talker.close()
	began := time.Now()
	for stage, number := range path {
		func() {
			s, err := upgrade.Open(t.Context(), release(t, fmt.Sprint(number)), upgrade.Options{
				Dir: p.dir, Cgroup: p.cgroup, Accept: upgrade.AcceptAny})
			must(t, err)
			defer s.Close()
			if stage == 0 {
				p.fill(t, s, jumpServices)
			} else {
				plan, err := s.Upgrade(t.Context(), upgrade.Attempt{})
				if err != nil {
					t.Fatalf("from %d to %d: %v", path[stage-1], number, err)
				}
				m.check(t, s.Serving(), number)
				if plan.Move != "floor" {
					t.Errorf("from %d to %d: %+v", path[stage-1], number, plan)
				}
			}
			g := s.Serving()
			m.use(t, p, affinitySchema[number], stage, g, random)
			if released := g.Maps["released"]; released != nil {
				var n uint64
				must(t, released.Lookup(uint32(0), &n))
				if n == 0 {
					t.Errorf("release %d saw no socket released", number)
				}
			}
			m.send(t)
			if stage == 0 {
				m.learnPeers(t, g)
			}
			m.check(t, g, number)
		}()
		if t.Failed() {
			t.Fatalf("after %v", path[:stage+1])
		}
	}
	t.Logf("%d jumps took %v, with %d entries of affinity and %d of peers at the end", len(path)-1,
		time.Since(began).Round(time.Millisecond), len(m.affinities), len(m.peers))
}
