// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/cilium/ebpf"
)

// Store is the pinned state in the hands of its one owner. Its methods may be called by several goroutines. Maps and
// programs that it hands out live until Close, after which it is not to be used.
type Store struct {
	// Pods attaches the hooks of single pods.
	Pods *Pods

	view    *view
	object  *object // the release that serves, as far as it is known; else the caller's
	release *object // the caller's
	hooks   []Hook  // of all releases that are loaded
	lease   *os.File
	journal *journal
	log     *slog.Logger
	cgroup  string   // path of the one that cgroup hooks are attached to
	inside  *os.File // the same, open; nil without cgroup hooks
	accept  Accept
	goBack  string
	began   time.Time
	busy    bool // an upgrade is under way; it gives the lock back while a canary is held
	same    bool // the release that serves is the caller's
	created bool // Open has made it

	mu sync.Mutex // held by everything that changes generations or the word
	// naming is of view.maps, which an upgrade replaces by more while others look: what was handed out never changes.
	naming sync.RWMutex
}

// Word is the word as it is now.
func (s *Store) Word() Word { return s.view.super.word() }

// Last is the highest number given to a generation so far; [Word.Next] finds the one after it.
func (s *Store) Last() uint16 { return s.view.super.phase().Last() }

// Epoch is this owner's.
func (s *Store) Epoch() uint16 { return s.journal.epoch }

// Created reports whether Open has made the data plane, from nothing: no map of it has held anything before.
func (s *Store) Created() bool { return s.created }

// Differs reports whether the programs that serve are of another release than this one.
func (s *Store) Differs() bool { return !s.same }

// Frozen are the maps that all generations share, by name. The caller must not change the map.
func (s *Store) Frozen() map[string]*ebpf.Map {
	s.naming.RLock()
	defer s.naming.RUnlock()
	return s.view.maps
}

// Generation returns a loaded generation, nil if there is none of that number.
func (s *Store) Generation(n uint16) *Generation {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.view.generations[n]
}

// Serving is the generation that new connections get.
func (s *Store) Serving() *Generation { return s.Generation(s.Word().Serve()) }

// Swap stores next if the word is still expect; else it returns a [StaleError] with the word that is. It refuses a
// word by which a connection could run a generation that is not loaded. Layout changes hold [Store.Writers] around it.
func (s *Store) Swap(expect, next Word) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next = next.WithEpoch(s.journal.epoch)
	serve := next.Serve()
	if serve == 0 {
		return fmt.Errorf("swap word to {%v}: something has to serve", next)
	}
	for _, n := range next.Live() {
		if s.view.generations[n] == nil {
			return fmt.Errorf("swap word to {%v}: generation %d is not loaded", next, n)
		}
	}
	s.journal.generation = serve
	defer func() { s.journal.generation = 0 }()
	err := s.journal.do(StepSwapWord, next.String(), func() error { return s.view.super.swap(expect, next) })
	if err != nil || serve == expect.Serve() {
		return err
	}
	return s.journal.do(StepLinkCurrent, pathCurrent, func() error { return s.view.tree.linkCurrent(serve) })
}

// Inspect is [Inspect] of this tree, and says whether the release differs from the one that serves. Of maps that no
// program uses only the owner can tell whether what is pinned are they.
func (s *Store) Inspect() (*State, error) {
	state, err := Inspect(string(s.view.tree))
	if err != nil {
		return nil, err
	}
	state.Differs = s.Differs()
	pinned := make(map[string]ebpf.MapID)
	for _, m := range state.Maps {
		pinned[m.Name] = m.ID
	}
	frozen := s.Frozen()
	for _, name := range sortedKeys(frozen) {
		path, used := join(pathMaps, name), mapID(frozen[name])
		id, there := pinned[name]
		switch {
		case slices.ContainsFunc(state.Damages, func(d Damage) bool { return d.Path == path }):
		case !there:
			state.Damages = append(state.Damages, Damage{path, "it is gone",
				"the agent that runs pins it again, do not end it before"})
		case id != used:
			what := fmt.Sprintf("it is map %d, the agent uses %d", id, used)
			state.Damages = append(state.Damages, Damage{path, what,
				"find out who put it there, and remove it: the agent pins its own again"})
		}
	}
	return state, nil
}

// Repin gives maps that all generations share the names again that somebody has removed since [Open], and returns
// their paths. Some have nothing else that keeps them once this process ends.
func (s *Store) Repin() (paths []string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range sortedKeys(s.view.maps) {
		path := join(pathMaps, name)
		if _, err := os.Lstat(s.at(path)); !errors.Is(err, fs.ErrNotExist) {
			continue // what is there may be foreign: Inspect says so
		}
		if err := s.journal.do(StepPinMap, path, func() error { return pin(s.view.maps[name], s.at(path)) }); err != nil {
			return paths, err
		}
		paths = append(paths, path)
	}
	return paths, nil
}

// Close gives up the lease and every descriptor. The data plane stays exactly as it is. It may be called twice.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.view != nil {
		s.view.close()
		s.view = nil
	}
	var err error
	if s.inside != nil {
		err = s.inside.Close()
		s.inside = nil
	}
	if s.lease != nil {
		err = errors.Join(err, s.lease.Close())
		s.lease = nil
	}
	return err
}
