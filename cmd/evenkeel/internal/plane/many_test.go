// SPDX-License-Identifier: Apache-2.0

package plane

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/pin"

	"github.com/evenkeel/evenkeel/upgrade"
)

// taken is what a data plane takes of the kernel, and this process of descriptors.
type taken struct {
	maps, programs, links, descriptors int
	memory                             uint64 // bytes of maps and programs
}

func (p *pod) taken(t *testing.T) (all taken) {
	t.Helper()
	must(t, filepath.WalkDir(p.dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		object, err := pin.Load(path, nil)
		if err != nil {
			return fmt.Errorf("load %s: %w", path, err)
		}
		defer object.Close()
		add := func(info interface{ Memlock() (uint64, bool) }, err error) {
			must(t, err)
			bytes, _ := info.Memlock()
			all.memory += bytes
		}
		switch object := object.(type) {
		case *ebpf.Map:
			all.maps++
			add(object.Info())
		case *ebpf.Program:
			all.programs++
			add(object.Info())
		default:
			all.links++
		}
		return nil
	}))
	runtime.GC() // what was forgotten open is closed by a finalizer, and counts no less
	open, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	all.descriptors = len(open)
	return all
}

// same reports whether nothing grew. The packed record of a release is some bytes longer or shorter with its number.
func (all taken) same(as taken) bool {
	grown := int64(all.memory) - int64(as.memory)
	all.memory = as.memory
	return all == as && grown < 1024 && grown > -1024
}

// However often a node is upgraded, with and without another layout, it takes what it took. EVENKEEL_UPGRADES=1000 goes on for
// that many.
func TestManyUpgradesTakeNoMore(t *testing.T) {
	upgrades := 8
	if more := os.Getenv("EVENKEEL_UPGRADES"); more != "" {
		var err error
		upgrades, err = strconv.Atoi(more)
		must(t, err)
	}
	p := newPod(t)
	cycle := []string{"unhealthy", "1", "4", "1"} // the same layout, and another
	planes := map[string]upgrade.DataPlane{}
	for _, name := range cycle {
		planes[name] = release(t, name)
	}
	open := func(name string) *upgrade.Store {
		s, err := upgrade.Open(t.Context(), planes[name], upgrade.Options{Dir: p.dir, Cgroup: p.cgroup, Accept: upgrade.AcceptAny})
		must(t, err)
		return s
	}
	s := open("1")
	p.fill(t, s, 4)
	must(t, s.Close())
	at := p.connect(t, service(2))
	var first taken
	for i := range upgrades {
		s := open(cycle[i%len(cycle)])
		_, err := s.Upgrade(t.Context(), upgrade.Attempt{})
		if err != nil {
			t.Fatalf("upgrade %d: %v", i+1, err)
		}
		must(t, s.Close())
		switch n := (i + 1) / len(cycle); {
		case (i+1)%len(cycle) != 0:
		case n == 1: // by then as many generations are kept as ever will be
			first = p.taken(t)
			t.Logf("after %d: %+v", i+1, first)
		case n > 1:
			if now := p.taken(t); !now.same(first) {
				t.Fatalf("after %d upgrades: %+v, after %d: %+v", len(cycle), first, i+1, now)
			}
			if i+1 == upgrades {
				t.Logf("after %d: the same", i+1)
			}
		}
	}
	leaked, err := os.Open(p.dir)
	must(t, err)
	defer leaked.Close()
	if p.taken(t).same(first) {
		t.Error("control: a descriptor that was left open is not seen")
	}
	if now := p.connect(t, service(2)); now != at {
		t.Errorf("affinity was with %s, is with %s", at, now)
	}
}
