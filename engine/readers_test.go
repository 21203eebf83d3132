// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/bpf"
	"github.com/evenkeel/evenkeel/engine/internal/reader"
)

const (
	readerServices = 48
	readerBase     = 0xfd010000 // the first tag
)

// Promise: nothing of more than one word is changed where it can be read. One CPU looks services up with the data
// plane's own code while the engine rewrites, removes and adds them from the other as fast as it can. A build that
// publishes in place (tag control_in_place) must be caught by the same test.
func TestReadersSeeNoHalfRecord(t *testing.T) {
	lookups := uint64(100_000_000)
	if testing.Short() {
		lookups = 5_000_000
	}
	maps := mustMaps(t)
	writer := newRewriter(t, mustEngine(t, maps))
	program, results := mustReader(t, maps)
	for tag := range uint32(readerServices) {
		writer.apply(readerBase + tag)
	}

	stop := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		defer pin(t, 1)()
		for {
			select {
			case <-stop:
				return
			default:
				writer.change()
			}
		}
	})
	start := time.Now()
	total := read(t, program, results, lookups)
	close(stop)
	running.Wait()

	t.Logf("%d selected, %d absent, %d torn, %d foreign after %d changes in %v", total.Selected, total.Absent, total.Torn,
		total.Foreign, writer.changes, time.Since(start).Round(time.Millisecond))
	if total.Selected == 0 || writer.changes == 0 {
		t.Fatal("nothing was selected, or nothing written: the test proves nothing")
	}
	bad := total.Torn + total.Foreign
	if inPlace && bad == 0 {
		t.Fatal("the build that publishes in place was not caught")
	}
	if !inPlace && bad != 0 {
		t.Fatalf("%d torn and %d foreign answers of %d look-ups, want none", total.Torn, total.Foreign, lookups)
	}
}

// rewriter makes random changes: an endpoint comes, goes or becomes another; a service goes, comes back, or gets a new
// record.
type rewriter struct {
	t        *testing.T
	engine   *Engine
	random   *rand.Rand
	version  uint32
	versions map[uint32][]uint32 // of the endpoints, by tag; none: no service
	affinity map[uint32]time.Duration
	changes  int
}

func newRewriter(t *testing.T, e *Engine) *rewriter {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	w := &rewriter{t: t, engine: e, random: rand.New(rand.NewPCG(seed, 0)),
		versions: make(map[uint32][]uint32), affinity: make(map[uint32]time.Duration)}
	for tag := range uint32(readerServices) {
		w.versions[readerBase+tag] = []uint32{w.next(), w.next(), w.next()}
	}
	return w
}

func (w *rewriter) next() uint32 {
	w.version++
	return w.version
}

func (w *rewriter) change() {
	tag := readerBase + w.random.Uint32N(readerServices)
	v := slices.Clone(w.versions[tag])
	switch dice := w.random.IntN(20); {
	case len(v) == 0, dice < 4 && len(v) < 12:
		v = append(v, w.next())
	case dice < 8:
		at := w.random.IntN(len(v))
		v = slices.Delete(v, at, at+1)
	case dice < 10:
		w.affinity[tag] = time.Hour - w.affinity[tag]
	case dice < 11:
		v = nil
	default:
		v[w.random.IntN(len(v))] = w.next()
	}
	w.versions[tag] = v
	w.apply(tag)
	w.changes++
}

func (w *rewriter) apply(tag uint32) {
	name := fmt.Sprintf("test/%x", tag)
	change := Change{Services: map[string]*Service{name: nil}, Slices: map[string]*Slice{name: nil}}
	if len(w.versions[tag]) > 0 {
		slice := &Slice{Name: name, Service: name, Ports: []SlicePort{{Protocol: TCP, Port: 80}}}
		for _, v := range w.versions[tag] {
			slice.Endpoints = append(slice.Endpoints,
				Endpoint{Address: words(tag, v, v, tag), Weight: 1, Ready: true, Serving: true})
		}
		change.Slices[name] = slice
		change.Services[name] = &Service{Name: name, Addresses: []netip.Addr{words(0xfd000096, 0, 0, tag)},
			Ports: []ServicePort{{Protocol: TCP, Port: 80}}, Affinity: w.affinity[tag]}
	}
	if err := w.engine.Apply(w.t.Context(), "test", change); err != nil {
		w.t.Error(err)
	}
}

func words(w ...uint32) netip.Addr {
	var b [16]byte
	for i, word := range w {
		binary.BigEndian.PutUint32(b[4*i:], word)
	}
	return netip.AddrFrom16(b)
}

// read runs the reader on the first CPU until it has made that many look-ups.
func read(t *testing.T, program *ebpf.Program, results *ebpf.Map, lookups uint64) (total reader.ReaderReaderResult) {
	t.Helper()
	defer pin(t, 0)()
	const repeat = 20 // a run is one read-side section: writers that need a grace period wait for its end
	frame := make([]byte, 64)
	for done := uint64(0); done < lookups; done += repeat * uint64(reader.ReaderReaderLimitsREADER_BATCH) {
		if _, err := program.Run(&ebpf.RunOptions{Data: frame, Repeat: repeat}); err != nil {
			t.Fatal(err)
		}
		if err := results.Lookup(uint32(0), &total); err != nil {
			t.Fatal(err)
		}
		if total.Torn+total.Foreign > 0 {
			break // no more can be learnt
		}
	}
	return total
}

// pin keeps the calling goroutine on one CPU until the returned function is called.
func pin(t *testing.T, cpu int) func() {
	runtime.LockOSThread()
	var before, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		t.Error(err)
	}
	one.Set(cpu % runtime.NumCPU())
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Error(err)
	}
	return func() {
		if err := unix.SchedSetaffinity(0, &before); err != nil {
			t.Error(err)
		}
		runtime.UnlockOSThread()
	}
}

func mustReader(t *testing.T, maps bpf.MeshMaps) (*ebpf.Program, *ebpf.Map) {
	t.Helper()
	spec, err := reader.LoadReader()
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]uint32{"reader_base": readerBase, "reader_services": readerServices} {
		if err := spec.Variables[name].Set(value); err != nil {
			t.Fatal(err)
		}
	}
	var objects struct {
		Program *ebpf.Program `ebpf:"read_services"`
		Results *ebpf.Map     `ebpf:"results"`
	}
	err = spec.LoadAndAssign(&objects, &ebpf.CollectionOptions{MapReplacements: map[string]*ebpf.Map{
		"service_ids": maps.ServiceIds, "services": maps.Services, "slots": maps.Slots, "endpoints": maps.Endpoints,
		"workloads": maps.Workloads}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { objects.Program.Close(); objects.Results.Close() })
	return objects.Program, objects.Results
}
