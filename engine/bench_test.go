// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/bpf"
)

// cluster returns n services with so many endpoints each, one slice a service.
func cluster(n, endpoints int) Change {
	c := Change{Services: make(map[string]*Service, n), Slices: make(map[string]*Slice, n), Synced: everyKind}
	for i := range n {
		name := fmt.Sprintf("namespace-%d/service-%d", i%100, i)
		c.Services[name] = &Service{
			Name: name, Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)})},
			Ports: []ServicePort{{Name: "http", Protocol: TCP, Port: 80}}, Origin: "bench",
		}
		c.Slices[name+"-1"] = sliceOf(name, i*endpoints, endpoints)
	}
	return c
}

func sliceOf(service string, first, n int) *Slice {
	s := &Slice{
		Name: service + "-1", Service: service, Ports: []SlicePort{{Name: "http", Protocol: TCP, Port: 8080}},
		Endpoints: make([]Endpoint, 0, n), Origin: "bench",
	}
	for i := first; i < first+n; i++ {
		s.Endpoints = append(s.Endpoints, Endpoint{
			Address:  netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}),
			Workload: fmt.Sprintf("namespace/pod-%d", i), Node: fmt.Sprintf("node-%d", i%100),
			Zone: fmt.Sprintf("zone-%d", i%3), Weight: 1, Ready: true, Serving: true,
		})
	}
	return s
}

func benchEngine(b *testing.B, m bpf.MeshMaps) *Engine {
	b.Helper()
	o := testOptions(b, m)
	o.Log = slog.New(slog.DiscardHandler)
	e, err := New(b.Context(), o)
	if err != nil {
		b.Fatal(err)
	}
	return e
}

// cpuTime returns the CPU time of this process: on a machine that others use too it says more than the clock.
func cpuTime(b *testing.B) time.Duration {
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// Target: 10,000 services of 10 endpoints each within 0.5 s of one core.
func BenchmarkFullSync(b *testing.B) {
	c := cluster(10_000, 10)
	var cpu time.Duration
	defer func() { b.ReportMetric(float64(cpu.Milliseconds())/float64(b.N), "cpu-ms/op") }()
	for b.Loop() {
		b.StopTimer()
		m := mustMaps(b)
		e := benchEngine(b, m)
		runtime.GC()
		begin := cpuTime(b)
		b.StartTimer()
		if err := e.Apply(b.Context(), "test", c); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		cpu += cpuTime(b) - begin
		m.Close()
		b.StartTimer()
	}
}

// Target: 100,000 endpoints that are in the maps already within 0.4 s, and not a write.
func BenchmarkRestart(b *testing.B) {
	c := cluster(10_000, 10)
	m := mustMaps(b)
	if err := benchEngine(b, m).Apply(b.Context(), "test", c); err != nil {
		b.Fatal(err)
	}
	o := testOptions(b, m)
	o.Log = slog.New(slog.DiscardHandler)
	begin := cpuTime(b)
	defer func() {
		b.ReportMetric(float64((cpuTime(b)-begin).Milliseconds())/float64(b.N), "cpu-ms/op")
	}()
	for b.Loop() {
		e, err := New(b.Context(), o)
		if err != nil {
			b.Fatal(err)
		}
		if err := e.Apply(b.Context(), "test", c); err != nil {
			b.Fatal(err)
		}
		if n := e.Stats().Writes.total(); n != 0 {
			b.Fatalf("%d writes", n)
		}
	}
}

// Target: one endpoint of 100 in 0.1 ms (median), one of 5,000 in 2 ms, from the decoded change to the store that makes
// it visible.
func BenchmarkOneEndpoint(b *testing.B) {
	for _, n := range []int{10, 100, 1000, 5000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			m := mustMaps(b)
			e := benchEngine(b, m)
			c := cluster(1, n)
			if err := e.Apply(b.Context(), "test", c); err != nil {
				b.Fatal(err)
			}
			name := slices.Collect(maps.Keys(c.Services))[0]
			var took []time.Duration
			spare := 1 << 20
			for b.Loop() {
				s := sliceOf(name, 0, 0)
				s.Endpoints = slices.Clone(c.Slices[name+"-1"].Endpoints)
				s.Endpoints[spare%n].Address = netip.AddrFrom4([4]byte{11, byte(spare >> 16), byte(spare >> 8), byte(spare)})
				spare++
				start := time.Now()
				err := e.Apply(b.Context(), "test", Change{Slices: map[string]*Slice{s.Name: s}})
				took = append(took, time.Since(start))
				if err != nil {
					b.Fatal(err)
				}
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
		})
	}
}

// What the engine keeps of 100,000 endpoints, beyond what the source gave it.
func BenchmarkMemory(b *testing.B) {
	m := mustMaps(b)
	c := cluster(10_000, 10)
	for b.Loop() {
		e := benchEngine(b, m)
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		if err := e.Apply(b.Context(), "test", c); err != nil {
			b.Fatal(err)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(1<<20), "MiB")
		runtime.KeepAlive(e)
	}
}
