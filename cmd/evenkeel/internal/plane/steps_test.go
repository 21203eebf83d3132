// SPDX-License-Identifier: Apache-2.0

package plane

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/google/go-cmp/cmp"

	"github.com/evenkeel/evenkeel/upgrade/migrate"
)

// mover moves entries between the maps of releases that nothing else uses.
type mover struct {
	release int
	state   *ebpf.Map
	sides   map[string]*ebpf.Map
}

// kernelTypes are read once: reading them takes longer than loading what they are read for.
var kernelTypes = btf.NewCache()

func objectOf(t *testing.T, number int) *ebpf.CollectionSpec {
	t.Helper()
	spec, err := ebpf.LoadCollectionSpec(filepath.Join(releases, fmt.Sprint(number)+".o"))
	must(t, err)
	return spec
}

// move moves all entries of a map, whose schema in a release the function says, to that of another release.
func (m *mover) move(t *testing.T, schema func(release int) string, to int) {
	t.Helper()
	from, name := schema(m.release), schema(to)
	linked, err := migrate.Link(objectOf(t, to), objectOf(t, m.release), []migrate.Pair{{Target: name, Source: from}})
	must(t, err)
	maps.DeleteFunc(linked.Programs, func(program string, _ *ebpf.ProgramSpec) bool {
		return !slices.Contains(migrate.Programs(linked, name), program)
	})
	use := maps.Clone(m.sides)
	stand, notes := migrate.Placeholder(name)
	use[stand] = m.state
	maps.DeleteFunc(use, func(n string, _ *ebpf.Map) bool { return linked.Maps[n] == nil })
	all, err := ebpf.NewCollectionWithOptions(linked, ebpf.CollectionOptions{MapReplacements: use, Cache: kernelTypes})
	must(t, err)
	t.Cleanup(all.Close)
	for n, side := range all.Maps {
		if migrate.IsSide(n) {
			m.sides[n] = side
		}
	}
	moving := migrate.Migration{Name: name, Source: m.state, Target: all.Maps[name], Notes: all.Maps[notes], Programs: all.Programs}
	copied, err := moving.Copy(t.Context(), nil)
	must(t, err)
	checked, err := moving.Check(t.Context())
	must(t, err)
	if copied.LeftOut > 0 || checked.Missing > 0 || checked.Seen != copied.Inserted {
		t.Fatalf("%s to %s: %+v, %+v", from, name, copied, checked)
	}
	m.release, m.state = to, all.Maps[name]
}

// Whatever is in a map of programs comes back from the schema of every other release, byte by byte. In the controls what
// was put aside is lost on the way.
func TestEntriesComeBack(t *testing.T) {
	newPod(t) // for the privilege
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	affinities := func(release int) string { return schemaName("affinities", affinitySchema[release]) }
	peers := func(release int) string { return schemaName("peers", peerSchema[release]) }
	there := func(t *testing.T, schema func(int) string, fix func(release int, key, value []byte), from, to int, forget bool) string {
		t.Helper()
		spec := objectOf(t, from).Maps[schema(from)]
		state, err := ebpf.NewMap(spec)
		must(t, err)
		defer state.Close()
		for range 500 {
			key, value := make([]byte, spec.KeySize), make([]byte, spec.ValueSize)
			for _, b := range [][]byte{key, value} {
				for i := range b {
					b[i] = byte(random.Uint32())
				}
			}
			fix(from, key, value)
			must(t, state.Put(key, value))
		}
		before := contents(t, state)
		m := &mover{release: from, state: state, sides: make(map[string]*ebpf.Map)}
		m.move(t, schema, to)
		if forget {
			clear(m.sides)
		}
		m.move(t, schema, from)
		return cmp.Diff(before, contents(t, m.state))
	}
	for from := 1; from <= 6; from++ {
		for to := 1; to <= 6; to++ {
			if from == to {
				continue
			}
			t.Run(fmt.Sprintf("%d to %d", from, to), func(t *testing.T) {
				if diff := there(t, affinities, fixAffinity, from, to, false); diff != "" {
					t.Errorf("affinities (-before +after): %.1000s", diff)
				}
				if diff := there(t, peers, fixPeer, from, to, false); diff != "" {
					t.Errorf("peers (-before +after): %.1000s", diff)
				}
			})
		}
	}
	for _, c := range [][2]int{{2, 1}, {5, 6}} {
		t.Run(fmt.Sprintf("control: %d to %d", c[0], c[1]), func(t *testing.T) {
			if there(t, affinities, fixAffinity, c[0], c[1], true) == "" {
				t.Error("nothing was lost: the test says nothing")
			}
		})
	}
}

// fixAffinity makes of random bytes what programs could have written: the node's own network, and no time after 2^32 s.
func fixAffinity(release int, key, value []byte) {
	if affinitySchema[release] >= 4 {
		clear(key[8:12])
		clear(key[20:24])
	}
	if at := [...]int{1: 8, 2: 8, 3: 16, 4: 16, 5: 16, 6: -1}[affinitySchema[release]]; at >= 0 {
		value[at+7] &= 0x1f
	}
}

// fixPeer does the same: padding is zero, and there are no tombstones.
func fixPeer(release int, key, value []byte) {
	clear(key[28:32])
	if peerSchema[release] >= 3 {
		clear(value[:6])
		return
	}
	clear(value[26:32])
}

func contents(t *testing.T, m *ebpf.Map) map[string]string {
	t.Helper()
	all := make(map[string]string)
	key, value := make([]byte, m.KeySize()), make([]byte, m.ValueSize())
	it := m.Iterate()
	for it.Next(&key, &value) {
		all[fmt.Sprintf("%x", key)] = fmt.Sprintf("%x", value)
	}
	must(t, it.Err())
	return all
}
