// SPDX-License-Identifier: Apache-2.0

package stopwatch

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/cilium/ebpf"

	"github.com/evenkeel/evenkeel/bpf"
	"github.com/evenkeel/evenkeel/bpf/rcu"
	"github.com/evenkeel/evenkeel/engine/manifest"
	"github.com/evenkeel/evenkeel/upgrade"

	corev1 "k8s.io/api/core/v1"
)

// SwitchOptions say how much of what [Switch] does.
type SwitchOptions struct {
	Rounds      int
	Flips       time.Duration // how long serve and canary are exchanged, a thousand times a second, in a round
	Connections int           // established ones, over which gaps are measured
}

// Switches is what generations of the data plane cost that take each other's place, a number per round.
type Switches struct {
	Store       []float64 `json:"store"`       // seconds; the median of changes of the word, its log entry and the name current
	Grace       []float64 `json:"grace"`       // seconds
	Rollback    []float64 `json:"rollback"`    // seconds; from the decision until no program of the bad generation runs
	Gap         []float64 `json:"gap"`         // seconds; the longest wait for an answer during an upgrade and a rollback
	Idle        []float64 `json:"idle"`        // seconds; the same while nothing changes
	Indirection []float64 `json:"indirection"` // nanoseconds
	Mixed       []float64 `json:"mixed"`       // events that met another generation than their connection's
	Events      []float64 `json:"events"`      // of the traffic meanwhile: calls of the application that meet a hook
	Changes     []float64 `json:"changes"`     // of the word meanwhile
}

// Switch has a second generation of the same release take the place of the first and go again, while this process,
// which is in the cgroup and the network namespace of an enrolled pod, connects to the service of the manifests. The
// endpoint of that is an address of the pod.
func Switch(ctx context.Context, o Options, of SwitchOptions) (all Switches, err error) {
	documents, _, err := objects(o.Manifests)
	if err != nil {
		return all, err
	}
	to, err := firstAddress(documents)
	if err != nil {
		return all, err
	}
	m, err := open(ctx, o)
	if err != nil {
		return all, err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	if _, err := m.sync(ctx, documents); err != nil {
		return all, err
	}
	e, err := newEcho(ctx)
	if err != nil {
		return all, err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	conversation, err := converse(ctx, to, of.Connections)
	if err != nil {
		return all, err
	}
	defer func() { err = errors.Join(err, conversation.close()) }()
	s := &switcher{store: m.store, dir: o.Dir, to: to, talk: conversation, of: of}
	for range of.Rounds {
		if err := s.round(ctx, &all); err != nil {
			return all, err
		}
	}
	return all, nil
}

// firstAddress is the first service's, with the port of the first of its ports.
func firstAddress(documents []manifest.Document) (netip.AddrPort, error) {
	for _, d := range documents {
		service, is := d.Object.(*corev1.Service)
		if !is {
			continue
		}
		address, err := netip.ParseAddr(service.Spec.ClusterIP)
		if err != nil {
			return netip.AddrPort{}, fmt.Errorf("service %s: %w", service.Name, err)
		}
		return netip.AddrPortFrom(address, uint16(service.Spec.Ports[0].Port)), nil
	}
	return netip.AddrPort{}, errors.New("the manifests have no service")
}

type switcher struct {
	store *upgrade.Store
	dir   string
	to    netip.AddrPort
	talk  *conversation
	of    SwitchOptions
}

func (s *switcher) round(ctx context.Context, all *Switches) error {
	indirection, err := s.indirection()
	if err != nil {
		return err
	}
	all.Indirection = append(all.Indirection, indirection)
	s.talk.longest()
	if err := sleep(ctx, time.Second); err != nil {
		return err
	}
	all.Idle = append(all.Idle, s.talk.longest().Seconds())
	next, err := s.load(ctx)
	if err != nil {
		return err
	}
	old := s.store.Word()
	if err := s.store.Swap(old, old.Upgrade(next)); err != nil {
		return err
	}
	if err := sleep(ctx, 100*time.Millisecond); err != nil {
		return err
	}
	took, err := s.rollBack(old.Serve())
	if err != nil {
		return err
	}
	all.Rollback = append(all.Rollback, took.Seconds())
	if err := s.store.Retire(ctx, next); err != nil {
		return err
	}
	all.Gap = append(all.Gap, s.talk.longest().Seconds())
	begin := time.Now()
	if err := rcu.Synchronize(); err != nil {
		return err
	}
	all.Grace = append(all.Grace, time.Since(begin).Seconds())
	if err := s.flip(ctx, all); err != nil {
		return err
	}
	return s.talk.failed()
}

// load loads another generation of the release, under the next number that has a place.
func (s *switcher) load(ctx context.Context) (uint16, error) {
	n, err := s.store.Word().Next(s.store.Last())
	if err != nil {
		return 0, err
	}
	return n, s.store.Load(ctx, n)
}

// rollBack returns to a generation, and says how long it took until nothing runs the other.
func (s *switcher) rollBack(to uint16) (time.Duration, error) {
	begin := time.Now()
	word := s.store.Word()
	if err := s.store.Swap(word, word.Rollback(to)); err != nil {
		return 0, err
	}
	err := rcu.Synchronize()
	return time.Since(begin), err
}

// flip exchanges serve and canary, the floor kept, while sockets come and go, and counts what met both.
func (s *switcher) flip(ctx context.Context, all *Switches) error {
	next, err := s.load(ctx)
	if err != nil {
		return err
	}
	one := s.store.Word()
	if next != one.Serve()+1 { // after a rollback a number is left out, and the floor moves: that is no flip
		if err := s.store.Swap(one, one.Upgrade(next)); err != nil {
			return err
		}
		if err := s.store.Retire(ctx, one.Serve()); err != nil {
			return err
		}
		if next, err = s.load(ctx); err != nil {
			return err
		}
		one = s.store.Word()
	}
	if err := rcu.Synchronize(); err != nil { // for the floor to have moved
		return err
	}
	traffic := comeAndGo(ctx, s.to)
	if err := sleep(ctx, 50*time.Millisecond); err != nil {
		return errors.Join(err, traffic.stop())
	}
	before, err := s.moved()
	if err != nil {
		return errors.Join(err, traffic.stop())
	}
	stores, err := s.exchange(ctx, one, next)
	if err := errors.Join(err, traffic.stop()); err != nil {
		return err
	}
	after, err := s.moved()
	if err != nil {
		return err
	}
	all.Mixed = append(all.Mixed, float64(after-before))
	all.Events = append(all.Events, float64(traffic.events.Load()))
	all.Changes = append(all.Changes, float64(len(stores)))
	all.Store = append(all.Store, middle(stores))
	word := s.store.Word()
	if err := s.store.Swap(word, word.Withdraw()); err != nil {
		return err
	}
	return s.store.Retire(ctx, next)
}

// exchange changes the word for as long as is asked, and says how long each change took, in seconds.
func (s *switcher) exchange(ctx context.Context, one upgrade.Word, next uint16) (took []float64, err error) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	two := one.Upgrade(next)
	back := one.WithCanary(next, 0)
	for begin, at := time.Now(), one; time.Since(begin) < s.of.Flips || at.Serve() != one.Serve(); {
		to := two
		switch {
		case at.Serve() != one.Serve():
			to = back
		case at.Canary() == 0:
			to = back // live, though no new connection is stamped so
		}
		start := time.Now()
		if err := s.store.Swap(s.store.Word(), to); err != nil {
			return took, err
		}
		took = append(took, time.Since(start).Seconds())
		at = to
		select {
		case <-tick.C:
		case <-ctx.Done():
			return took, context.Cause(ctx)
		}
	}
	return took, nil
}

// moved is how many events met another generation than their socket before, in all generations.
func (s *switcher) moved() (sum uint64, err error) {
	for _, n := range s.store.Word().Live() {
		var each []uint64
		if err := s.store.Generation(n).Maps["counters"].Lookup(uint32(bpf.MeshCountCOUNT_MOVED), &each); err != nil {
			return 0, fmt.Errorf("read counters of generation %d: %w", n, err)
		}
		for _, v := range each {
			sum += v
		}
	}
	return sum, nil
}

// indirection is what an event costs more that goes through an entry program, which reads the word and jumps, than one
// that runs the generation's program at once: at the hook of an interface, whose programs the kernel runs on demand.
func (s *switcher) indirection() (float64, error) {
	const hook, pairs, runs = "tcx", 21, 20_000
	entry, err := ebpf.LoadPinnedProgram(filepath.Join(s.dir, "entries", hook), nil)
	if err != nil {
		return 0, fmt.Errorf("open entry program: %w", err)
	}
	defer entry.Close()
	direct := s.store.Serving().Programs["mesh_"+hook]
	frame := make([]byte, 64)
	frame[12], frame[13] = 0x08, 0x00 // IPv4
	run := func(p *ebpf.Program) (float64, error) {
		_, took, err := p.Benchmark(frame, runs, nil)
		return float64(took.Nanoseconds()), err
	}
	differences := make([]float64, 0, pairs)
	for i := range pairs {
		first, second, sign := entry, direct, 1.0
		if i%2 == 1 {
			first, second, sign = direct, entry, -1.0
		}
		a, err := run(first)
		if err != nil {
			return 0, fmt.Errorf("run program: %w", err)
		}
		b, err := run(second)
		if err != nil {
			return 0, fmt.Errorf("run program: %w", err)
		}
		differences = append(differences, sign*(a-b))
	}
	return middle(differences), nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
