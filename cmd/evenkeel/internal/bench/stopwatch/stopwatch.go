// SPDX-License-Identifier: Apache-2.0

// Package stopwatch runs what the agent is made of (upgrade, engine, sources) in a process of its own, on the data plane of a
// simulated node, and takes the time. Package bench starts it there, as `evenkeel bench node`, and reads its answers. It
// composes the parts as package agent does, and judges nothing.
package stopwatch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sync/errgroup"

	"github.com/evenkeel/evenkeel/bpf"
	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/footprint"
	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/plane"
	"github.com/evenkeel/evenkeel/engine"
	"github.com/evenkeel/evenkeel/engine/manifest"
	"github.com/evenkeel/evenkeel/engine/source"
	"github.com/evenkeel/evenkeel/engine/source/file"
	"github.com/evenkeel/evenkeel/upgrade"
)

// Options say on what.
type Options struct {
	Dir, Cgroup string // of the data plane; see upgrade.Options
	Manifests   string // file that holds the cluster
	Sizes       bpf.Sizes
	// CPUProfile and HeapProfile are files that profiles are written to, of what is timed; empty for none.
	CPUProfile, HeapProfile string
	Log                     *slog.Logger
}

// Result is an answer, a JSON object on a line.
type Result struct {
	// Seconds is what was asked for; see the functions.
	Seconds float64 `json:"seconds"`
	// Writes are map elements written meanwhile.
	Writes uint64 `json:"writes"`
	// Took are the times of single changes, in seconds.
	Took []float64 `json:"took,omitempty"`
}

// sourceName is the name of the only source.
const sourceName = "bench"

var everyKind = []engine.Kind{engine.Services, engine.Slices, engine.Nodes, engine.Workloads, engine.Namespaces}

// mesh is a data plane with its engine.
type mesh struct {
	store  *upgrade.Store
	engine *engine.Engine
}

// open installs the data plane, or adopts what is there.
func open(ctx context.Context, o Options) (*mesh, error) {
	store, err := take(ctx, o)
	if err != nil {
		return nil, err
	}
	return adopt(ctx, o, store)
}

// take makes the data plane that of this process.
func take(ctx context.Context, o Options) (*upgrade.Store, error) {
	footprint.Limit() // as the agent does
	return upgrade.Open(ctx, plane.Of(o.Sizes.MaxEntries()), upgrade.Options{Dir: o.Dir, Cgroup: o.Cgroup, Log: o.Log})
}

// adopt makes the engine of a data plane, which is closed if that fails.
func adopt(ctx context.Context, o Options, store *upgrade.Store) (*mesh, error) {
	m := &mesh{store: store}
	serving := store.Serving()
	maps, err := plane.Maps(store.Frozen(), serving)
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	m.engine, err = engine.New(ctx, engine.Options{
		Maps: maps, Publisher: bpf.NewPublisher(serving.Programs[bpf.MeshProgPublish], store.Epoch()),
		DestroyUDP: serving.Programs[bpf.MeshProgDestroyUdp], Node: "a", Sources: []string{sourceName}, Log: o.Log,
	})
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return m, nil
}

// writes are the map elements written so far.
func (m *mesh) writes() uint64 {
	w := m.engine.Stats().Writes
	return w.ServiceIDs + w.Services + w.Slots + w.Endpoints
}

func (m *mesh) close() error { return m.store.Close() }

// check fails if what was applied is not what serves.
func (m *mesh) check(objects int) error {
	stats := m.engine.Stats()
	if stats.Pending != 0 || stats.Failed != 0 {
		return fmt.Errorf("%d services are not served, %d changes failed: %s", stats.Pending, stats.Failed, stats.LastError)
	}
	ids, err := m.listed()
	if err != nil {
		return err
	}
	// Each has an entry for its port and one for those that it does not have.
	if services := ids / 2; services != objects {
		return fmt.Errorf("%d services of %d are in the kernel", services, objects)
	}
	return nil
}

// listed counts the entries of service_ids, in the kernel.
func (m *mesh) listed() (n int, err error) {
	ids := m.store.Serving().Maps["service_ids"]
	var key bpf.MeshServiceKey
	var at uint32
	all := ids.Iterate()
	for all.Next(&key, &at) {
		n++
	}
	if err := all.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return 0, fmt.Errorf("read map service_ids: %w", err)
	}
	return n, nil
}

// objects decodes the manifests.
func objects(path string) ([]manifest.Document, int, error) {
	in, err := os.Open(path)
	if err != nil {
		return nil, 0, fmt.Errorf("read manifests: %w", err)
	}
	defer in.Close()
	documents, _, err := manifest.Decode(in, path)
	if err != nil {
		return nil, 0, err
	}
	services := 0
	for _, d := range documents {
		if d.Key().Kind == manifest.KindService {
			services++
		}
	}
	return documents, services, nil
}

// SyncMemory takes the time from decoded objects to the last map entry, on a data plane without any. It leaves that
// behind, filled.
func SyncMemory(ctx context.Context, o Options) (r Result, err error) {
	documents, services, err := objects(o.Manifests)
	if err != nil {
		return r, err
	}
	m, err := open(ctx, o)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	runtime.GC() // what decoding left behind is not this measurement's to clear
	stop, err := o.profile()
	if err != nil {
		return r, err
	}
	begin := time.Now()
	state, err := m.sync(ctx, documents)
	if err != nil {
		return r, err
	}
	r.Seconds, r.Writes = time.Since(begin).Seconds(), m.writes()
	defer runtime.KeepAlive(state)
	return r, errors.Join(stop(), m.check(services))
}

// sync hands the engine all objects.
func (m *mesh) sync(ctx context.Context, documents []manifest.Document) (*source.State, error) {
	state, change := translate(documents)
	if err := m.engine.Apply(ctx, sourceName, change); err != nil {
		return nil, err
	}
	state.Commit()
	return state, nil
}

// translate returns all objects as a source hands them to the engine.
func translate(documents []manifest.Document) (*source.State, engine.Change) {
	state := source.New(source.Options{Derive: true})
	for _, d := range documents {
		state.Upsert(d.Object, d.Origin())
	}
	change := state.Change()
	change.Synced = everyKind
	return state, change
}

// SyncYAML takes the time from a file to the last map entry, on a data plane without any: the file source reads it, as
// in the agent.
func SyncYAML(ctx context.Context, o Options) (r Result, err error) {
	m, err := open(ctx, o)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	s := file.New(file.Options{Path: o.Manifests, Log: o.Log})
	running, stop := context.WithCancel(ctx)
	defer stop()
	profiled, err := o.profile()
	if err != nil {
		return r, err
	}
	begin := time.Now()
	err = s.Run(running, func(ctx context.Context, c engine.Change) error {
		defer stop()
		if err := m.engine.Apply(ctx, sourceName, c); err != nil {
			return err
		}
		r.Seconds = time.Since(begin).Seconds()
		return nil
	})
	if err != nil {
		return r, err
	}
	if r.Seconds == 0 {
		return r, fmt.Errorf("manifests were not applied: %w", s.Status().Err)
	}
	r.Writes = m.writes()
	return r, errors.Join(profiled(), m.check(s.Status().Objects[manifest.KindService]))
}

// Restart takes the time that the next owner of a data plane needs that has all entries already: to take it over, to
// adopt what the maps hold, and to find by decoded objects that nothing has changed. As in the agent, the source has its
// first change ready while the engine adopts.
func Restart(ctx context.Context, o Options) (r Result, err error) {
	documents, services, err := objects(o.Manifests)
	if err != nil {
		return r, err
	}
	runtime.GC()
	stop, err := o.profile()
	if err != nil {
		return r, err
	}
	begin := time.Now()
	store, err := take(ctx, o)
	if err != nil {
		return r, err
	}
	var state *source.State
	var change engine.Change
	var group errgroup.Group
	group.Go(func() error {
		state, change = translate(documents)
		return nil
	})
	m, err := adopt(ctx, o, store)
	if err := errors.Join(err, group.Wait()); err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	if err := m.engine.Apply(ctx, sourceName, change); err != nil {
		return r, err
	}
	state.Commit()
	r.Seconds, r.Writes = time.Since(begin).Seconds(), m.writes()
	return r, errors.Join(stop(), m.check(services))
}

// Order is what Change is told, a JSON object on a line.
type Order struct {
	Changes int `json:"changes"`
}

// Change syncs, and then makes as many changes as it is told by each line of in: an endpoint of one service is replaced
// by a new one. Result.Took is, for each, the time from the decoded EndpointSlice until Apply has returned. It then
// connects to the service until it has been given the new endpoint, and fails if it is given the one that went. It runs
// in the cgroup and the network namespace of an enrolled pod.
func Change(ctx context.Context, o Options, in io.Reader, out io.Writer) (err error) {
	documents, services, err := objects(o.Manifests)
	if err != nil {
		return err
	}
	m, err := open(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	state, err := m.sync(ctx, documents)
	if err != nil {
		return err
	}
	if err := m.check(services); err != nil {
		return err
	}
	w, err := newChanger(m, state, documents)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	ctx, stop := context.WithCancel(ctx)
	group.Go(func() error { return ignoreCancel(ctx, m.engine.Run(ctx)) })
	group.Go(func() error {
		defer stop()
		orders, answers := json.NewDecoder(in), json.NewEncoder(out)
		if err := answers.Encode(Result{Writes: m.writes()}); err != nil { // it is ready
			return fmt.Errorf("answer: %w", err)
		}
		for {
			var order Order
			if err := orders.Decode(&order); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return fmt.Errorf("read order: %w", err)
			}
			r, err := w.run(ctx, order.Changes)
			if err != nil {
				return err
			}
			if err := answers.Encode(r); err != nil {
				return fmt.Errorf("answer: %w", err)
			}
		}
	})
	return group.Wait()
}

func ignoreCancel(ctx context.Context, err error) error {
	if errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}
