// SPDX-License-Identifier: Apache-2.0

// Package engine makes the maps that the data plane reads agree with what the sources say: services and the endpoints
// behind them. It owns the contents of service_ids, services, slots and endpoints, and adopts what an earlier process
// left there. The agent calls it, one goroutine per source. It never loads, pins or attaches anything, never reads a
// source by itself, and no connection ever waits for it.
package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/cilium/ebpf"

	"github.com/evenkeel/evenkeel/bpf"
)

// Options are what an engine works with. Everything stays the caller's.
type Options struct {
	// Maps are the loaded maps; nobody else writes service_ids, services, slots and endpoints.
	Maps bpf.MeshMaps
	// FreshMaps tells that nothing was ever written to the maps: they are not read.
	FreshMaps bool
	// Sizes are how many elements a map may have, where that is less than it has room for; may be nil.
	Sizes map[string]uint32
	// Publisher makes the stores that readers see. Once it is stale the engine writes nothing any more.
	Publisher *bpf.Publisher
	// DestroyUDP is the program of that name, for Run.
	DestroyUDP *ebpf.Program
	// Node is the name of this node, which decides what is near.
	Node string
	// Sources are the names of what will call Apply, in rising precedence: of a key that two have, the later wins, whole.
	Sources []string
	Log     *slog.Logger
}

// Engine is safe for use by several goroutines. Apply may take as long as an RCU grace period (about 10 ms) when
// what was freed has to be used again; everything else is done in microseconds.
type Engine struct {
	opts   Options
	tables tables
	ready  bool
	synced chan struct{} // closed when ready
	wake   chan struct{} // tells Run that something is due

	mu        sync.Mutex
	desired   *desired
	mirror    *mirror
	plan      plan
	wants     *wants
	settling  settling
	deferred  map[string]struct{} // names of services that are adopted and not settled before their source is synced
	pending   map[string]*service // not served as they should be
	roomMade  uint64              // counts what was given up
	roomTried uint64              // roomMade when pending was last tried
	periods   periods
	sweepDue  bool  // an endpoint of UDP was removed
	fault     error // of a write: the mirror cannot be trusted
	stats     Stats
}

// New adopts what the maps hold: nothing is written before a source has said something else. Contents that make no
// sense are counted, reported to Log, and repaired when their service is applied or all sources are synced.
func New(ctx context.Context, o Options) (*Engine, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(o.Sources) == 0 {
		return nil, errors.New("create engine: no sources")
	}
	e, err := newEngine(o, &kernel{maps: o.Maps, publisher: o.Publisher})
	if err != nil {
		return nil, fmt.Errorf("create engine: %w", err)
	}
	return e, nil
}

func newEngine(o Options, t tables) (*Engine, error) {
	e := &Engine{
		opts: o, tables: t, synced: make(chan struct{}), wake: make(chan struct{}, 1),
		desired: newDesired(o.Node, o.Sources), wants: newWants(),
		deferred: make(map[string]struct{}), pending: make(map[string]*service),
	}
	if err := e.adopt(); err != nil {
		return nil, err
	}
	return e, nil
}

// Ready is closed once every source has sent all that it knows of every kind and the maps say so.
func (e *Engine) Ready() <-chan struct{} { return e.synced }

// Apply makes what source says from now on visible to the data plane before it returns. What c points to
// is kept and must not change afterwards.
//
// What cannot be applied is left as it was, the rest is; the error then joins an *ObjectError for each object that
// is concerned: ErrInvalid, ErrConflict, or ErrFull, which is tried again when a later change makes room. It wraps
// bpf.ErrStale if another agent owns the data plane now; then nothing was applied, and nothing ever will be.
func (e *Engine) Apply(ctx context.Context, source string, c Change) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if errors.Is(e.fault, bpf.ErrStale) {
		return e.fault
	}
	dirty, errs, err := e.desired.take(source, c)
	if err != nil {
		return err
	}
	if len(c.Synced) > 0 {
		for name := range e.deferred {
			if s := e.desired.byName[name]; s != nil {
				dirty[name] = s
			}
		}
		clear(e.deferred)
	}
	if err := e.applyDirty(dirty); err != nil {
		errs = append(errs, err)
	}
	for _, name := range slices.Sorted(maps.Keys(dirty)) {
		errs = append(errs, dirty[name].problems...)
	}
	e.stats.applied(errs)
	e.wakeRun()
	return errors.Join(errs...)
}

// applyDirty converges, once more from what the kernel then holds if a write failed.
func (e *Engine) applyDirty(dirty map[string]*service) error {
	first := !e.ready && e.desired.isSynced()
	e.ready = e.ready || first
	if first {
		e.sweepDue = true // an earlier process may have ended between the removal of an endpoint and its sweep
		for _, st := range e.mirror.sets {
			if st.held > 0 && st.owner != nil {
				dirty[st.owner.name] = st.owner
			}
		}
	}
	failed := e.fault
	if failed == nil {
		e.converge(dirty, first)
		failed = e.fault
	}
	if failed != nil && !errors.Is(failed, bpf.ErrStale) {
		if err := e.recover(); err != nil {
			return err
		}
	}
	if e.fault != nil {
		return fmt.Errorf("write maps: %w", e.fault)
	}
	if e.ready {
		select {
		case <-e.synced:
		default:
			close(e.synced)
			e.opts.Log.Info("services are in the maps", "services", len(e.desired.byName), "sets", len(e.mirror.sets))
		}
	}
	return nil
}

// recover reads the kernel again after a write that failed, and converges everything from there.
func (e *Engine) recover() error {
	e.stats.Recovered++
	if err := e.adopt(); err != nil {
		return err
	}
	for _, s := range e.desired.byName {
		s.sets, s.guards = nil, nil
	}
	clear(e.deferred)
	clear(e.pending)
	e.converge(e.desired.byName, e.ready)
	return nil
}

// Stats are counts since the engine was created.
type Stats struct {
	// Applied is the number of changes, Failed that of those which returned an error.
	Applied uint64 `json:"applied"`
	Failed  uint64 `json:"failed"`
	// Writes are map elements written.
	Writes writes `json:"writes"`
	// Repaired is what was found in the maps and made no sense.
	Repaired Repairs `json:"repaired"`
	// Recovered counts writes that failed, after which the maps were read again.
	Recovered uint64 `json:"recovered"`
	// Pending is the number of services that are not served as they should be.
	Pending int `json:"pending"`
	// Quarantined is the number of elements that wait for a grace period, Graces that of the periods waited for.
	Quarantined int    `json:"quarantined"`
	Graces      uint64 `json:"graces"`
	// Sweeps is how often namespaces were searched for UDP sockets of endpoints that are gone.
	Sweeps uint64 `json:"sweeps"`
	// LastError is that of the last change or sweep that failed, and when it was.
	LastError   string    `json:"lastError,omitempty"`
	LastErrorAt time.Time `json:"lastErrorAt,omitzero"`
}

// Repairs counts what New found in the maps that made no sense.
type Repairs struct {
	// Keys of service_ids that lead to no record of theirs.
	Keys int `json:"keys"`
	// Services whose ranges or slots cannot be right.
	Services int `json:"services"`
	// Endpoints that could be used but that no service refers to.
	Endpoints int `json:"endpoints"`
}

func (s *Stats) applied(errs []error) {
	s.Applied++
	if len(errs) > 0 {
		s.Failed++
		s.failed(errors.Join(errs...))
	}
}

func (s *Stats) failed(err error) { s.LastError, s.LastErrorAt = err.Error(), time.Now() }
