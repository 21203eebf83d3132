// SPDX-License-Identifier: Apache-2.0

package migrate

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// bed is a data plane of one state map, as release n has it, with traffic on it.
type bed struct {
	t        testing.TB
	keys     uint32
	schema   int
	state    *ebpf.Map
	shared   map[string]*ebpf.Map // books, workers, serve, calls
	sides    map[string]*ebpf.Map
	enter    *ebpf.Program
	dawdle   uint32
	removing uint32
	slots    uint32
}

// shared by all releases
var common = []string{"books", "workers", "serve", "calls"}

func newBed(t testing.TB, schema int, keys, dawdle uint32) *bed {
	t.Helper()
	needKernel(t)
	b := &bed{t: t, keys: keys, schema: schema, shared: make(map[string]*ebpf.Map), sides: make(map[string]*ebpf.Map), removing: 16, dawdle: dawdle}
	s := spec(t, schema, keys)
	all := b.load(s, nil, "event", "fill", "enter")
	for _, name := range common {
		b.shared[name] = all.Maps[name]
	}
	b.state, b.enter = all.Maps[Name("flows", schema)], all.Programs["enter"]
	b.put(all.Programs["event"])
	for from := uint32(0); from < keys; from += 1024 {
		n, err := all.Programs["fill"].Run(&ebpf.RunOptions{Data: make([]byte, 64), Context: skb{Mark: from}})
		if err != nil || n != 1024 {
			t.Fatalf("fill from %d: %d, %v", from, n, err)
		}
	}
	return b
}

// skb is the beginning of struct __sk_buff.
type skb struct{ Len, Type, Mark uint32 }

// load loads programs, and the maps that they use and that are not given.
func (b *bed) load(s *ebpf.CollectionSpec, use map[string]*ebpf.Map, programs ...string) *ebpf.Collection {
	b.t.Helper()
	prune(s, programs...)
	for name, value := range map[string]uint32{"keys": b.keys, "dawdle": b.dawdle, "removing": b.removing} {
		if err := s.Variables[name].Set(value); err != nil {
			b.t.Fatal(err)
		}
	}
	replace := make(map[string]*ebpf.Map)
	for _, of := range []map[string]*ebpf.Map{b.shared, use} {
		for name, m := range of {
			if s.Maps[name] != nil {
				replace[name] = m
			}
		}
	}
	all, err := ebpf.NewCollectionWithOptions(s, ebpf.CollectionOptions{MapReplacements: replace})
	if err != nil {
		b.t.Fatalf("load: %+v", err)
	}
	b.t.Cleanup(all.Close)
	return all
}

// put gives a program the next slot and returns its number.
func (b *bed) put(p *ebpf.Program) uint32 {
	b.t.Helper()
	slot := b.slots
	b.slots++
	if err := b.shared["calls"].Put(slot, p); err != nil {
		b.t.Fatal(err)
	}
	return slot
}

// serve has every event from now on run the program in a slot.
func (b *bed) serve(slot uint32) {
	b.t.Helper()
	if err := b.shared["serve"].Put(uint32(0), slot); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) grace() {
	b.t.Helper()
	if _, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, 1, 0, 0); errno != 0 { // MEMBARRIER_CMD_GLOBAL
		b.t.Fatal(errno)
	}
}

// traffic is events on two CPUs at a pace.
type traffic struct {
	b     *bed
	stop  context.CancelFunc
	group sync.WaitGroup
	start time.Time
	errs  chan error
}

// run starts workers that together make rate events a second.
func (b *bed) run(workers int, rate float64) *traffic {
	ctx, stop := context.WithCancel(b.t.Context())
	r := &traffic{b: b, stop: stop, start: time.Now(), errs: make(chan error, workers)}
	for w := range workers {
		r.group.Go(func() {
			if err := r.work(ctx, w, rate/float64(workers)); err != nil {
				r.errs <- err
			}
		})
	}
	b.t.Cleanup(stop)
	return r
}

func (r *traffic) work(ctx context.Context, worker int, rate float64) error {
	runtime.LockOSThread()
	var cpu unix.CPUSet
	cpu.Set(worker % runtime.NumCPU())
	if err := unix.SchedSetaffinity(0, &cpu); err != nil {
		return err
	}
	const batch = 1000
	timer := time.NewTimer(0)
	defer timer.Stop()
	data := make([]byte, 64)
	for done := 0; ; done += batch {
		due := r.start.Add(time.Duration(float64(done) / rate * float64(time.Second)))
		if wait := time.Until(due); wait > 0 {
			timer.Reset(wait)
			select {
			case <-ctx.Done():
				return nil
			case <-timer.C:
			}
		} else if ctx.Err() != nil {
			return nil
		}
		_, err := r.b.enter.Run(&ebpf.RunOptions{Data: data, Repeat: batch, Context: skb{Mark: uint32(worker)}})
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("worker %d: %w", worker, err)
		}
	}
}

// end stops the traffic.
func (r *traffic) end() {
	r.b.t.Helper()
	r.stop()
	r.group.Wait()
	close(r.errs)
	for err := range r.errs {
		r.b.t.Fatal(err)
	}
}

// events is how many there were so far.
func (b *bed) events() uint64 { return b.totals().Events }

func (b *bed) totals() (sum flows1FlowsWorker) {
	b.t.Helper()
	for i := range uint32(flows1FlowsLimitWORKERS) {
		var w flows1FlowsWorker
		if err := b.shared["workers"].Lookup(i, &w); err != nil {
			b.t.Fatal(err)
		}
		sum.Events += w.Events
		sum.Lost += w.Lost
		sum.Resurrected += w.Resurrected
		sum.Duplicated += w.Duplicated
		sum.Refused += w.Refused
		sum.Inserts += w.Inserts
		sum.Removals += w.Removals
		sum.Adds += w.Adds
	}
	return sum
}

// account compares every entry with the books, once the traffic has ended.
type account struct {
	Entries, Lost, Resurrected, Duplicated uint64 // Lost and Duplicated are counts, of hot keys too
	Missing                                uint64 // entries
}

// count reads count and dead out of a value of a schema, by their offsets.
func countIn(schema int, value []byte) (count uint64, dead uint32) {
	at := [...][2]int{1: {0, 16}, 2: {0, 24}, 3: {8, 24}, 4: {8, 24}, 5: {8, 24}, 6: {8, 20}}[schema]
	return binary.LittleEndian.Uint64(value[at[0]:]), binary.LittleEndian.Uint32(value[at[1]:])
}

func (b *bed) audit(state *ebpf.Map, schema int) (a account) {
	b.t.Helper()
	books := make([]flows1FlowsBook, b.shared["books"].MaxEntries())
	numbers := make([]uint32, len(books))
	var cursor ebpf.MapBatchCursor
	if _, err := b.shared["books"].BatchLookup(&cursor, numbers, books, nil); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		b.t.Fatal(err)
	}
	found := make([]bool, len(books))
	each(b.t, state, func(key, value []byte) {
		id := binary.LittleEndian.Uint32(key)
		count, dead := countIn(schema, value)
		if dead != 0 {
			return
		}
		a.Entries++
		found[id] = true
		switch want := books[id].Count; {
		case books[id].Lives == 0 && id >= uint32(flows1FlowsLimitHOT):
			a.Resurrected++
		case count < want:
			a.Lost += want - count
		case count > want:
			a.Duplicated += count - want
		}
	})
	for id := range books {
		if books[id].Lives != 0 && !found[id] {
			a.Missing++
			a.Lost += books[id].Count
		}
	}
	return a
}

// each calls f for every element of a hash.
func each(t testing.TB, m *ebpf.Map, f func(key, value []byte)) {
	t.Helper()
	const room = 1 << 16
	keys, values := elements(m.KeySize(), room), elements(m.ValueSize(), room)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := m.BatchLookup(&cursor, keys.Interface(), values.Interface(), nil)
		for i := range n {
			f(bytesOf(keys.Index(i)), bytesOf(values.Index(i)))
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func bytesOf(array reflect.Value) []byte { return array.Slice(0, array.Len()).Bytes() }
