// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/cilium/ebpf"
)

// State is all that can be seen of a tree.
type State struct {
	Dir         string            `json:"dir"`
	Epoch       uint16            `json:"epoch"`
	Floor       uint16            `json:"floor"`
	Serve       uint16            `json:"serve"`
	Canary      uint16            `json:"canary,omitempty"`
	Share       uint16            `json:"share,omitempty"` // of 4096 new connections
	Last        uint16            `json:"last"`            // highest number given to a generation
	Phase       string            `json:"phase"`
	Holder      *Holder           `json:"holder,omitempty"`  // nil if nobody holds the lease
	Differs     bool              `json:"differs,omitempty"` // only from Store.Inspect: its release is another
	Hooks       []HookState       `json:"hooks"`
	Generations []GenerationState `json:"generations"`
	Maps        []MapState        `json:"maps"` // those that all generations share
	Pods        int               `json:"pods"`
	PodLinks    int               `json:"podLinks"`
	PodsDefunct int               `json:"podsDefunct"` // pods with a link that is attached to nothing any more
	Building    []string          `json:"building"`    // paths of what is being built or removed
	Others      []Other           `json:"others"`      // programs of others on the same cgroups
	Damages     []Damage          `json:"damages"`
	Steps       []StepState       `json:"steps"`              // the latest, oldest first
	Previous    uint16            `json:"previous,omitempty"` // the generation that a rollback would serve
	Events      []Event           `json:"events"`             // what became of generations, the latest, oldest first
}

// Holder is the process that holds the lease.
type Holder struct {
	PID     int    `json:"pid"` // 0 if it is in a PID namespace that cannot be seen from here
	Command string `json:"command,omitempty"`
}

// HookState is what is attached at one hook.
type HookState struct {
	Name   string           `json:"name"`
	At     string           `json:"at"`
	Entry  ebpf.ProgramID   `json:"entry,omitempty"`
	Link   uint32           `json:"link,omitempty"`   // of hooks of the whole node
	Target string           `json:"target,omitempty"` // likewise
	OK     bool             `json:"ok"`               // the entry program is there, and attached if it is for the node
	Slots  []GenerationSlot `json:"slots"`
}

// GenerationSlot is the main program of a generation at a hook.
type GenerationSlot struct {
	Generation uint16         `json:"generation"`
	Program    ebpf.ProgramID `json:"program"` // 0: empty
}

// GenerationState is one loaded generation.
type GenerationState struct {
	Number uint16 `json:"number"`
	Live   bool   `json:"live"`            // some connection may run it
	Digest string `json:"digest"`          // SHA-256 of what it was loaded from, hexadecimal
	Label  string `json:"label,omitempty"` // of its release, for people
	Role   Role   `json:"role,omitempty"`  // "bridge" or "reverse", where it does not serve by itself
	// Sizes are how many entries its release allows in each map, or has room for; nil where that was not kept.
	Sizes    map[string]uint32 `json:"-"`
	Maps     []MapState        `json:"maps"`
	Programs []ProgramState    `json:"programs"`
}

// MapState is one map.
type MapState struct {
	Name       string     `json:"name"`
	ID         ebpf.MapID `json:"id"`
	Type       string     `json:"type"`
	MaxEntries uint32     `json:"maxEntries"`
	Memory     uint64     `json:"memory"` // bytes, as the kernel estimates
}

// ProgramState is one program.
type ProgramState struct {
	Name string         `json:"name"`
	ID   ebpf.ProgramID `json:"id"`
}

// StepState is one entry of the log in super.
type StepState struct {
	When       time.Duration `json:"when"` // since boot, nanoseconds
	Epoch      uint16        `json:"epoch"`
	Generation uint16        `json:"generation,omitempty"`
	Step       string        `json:"step"`
}

// Inspect reads a tree without a lock and without changing anything, whoever holds it. While an owner works on it the
// picture may be blurred. It returns [ErrNotInstalled] if there is no tree.
func Inspect(dir string) (*State, error) {
	if err := CheckPlace(dir); err != nil {
		return nil, err
	}
	for tries := 3; ; tries-- {
		s, err := inspect(dir)
		if err == nil {
			return s, nil
		}
		if errors.Is(err, fs.ErrNotExist) { // the tree went meanwhile, and may have come again
			if _, now := os.Stat(dir); errors.Is(now, fs.ErrNotExist) {
				err = ErrNotInstalled
			} else if tries > 0 {
				continue
			}
		}
		return nil, fmt.Errorf("inspect %s: %w", dir, err)
	}
}

func inspect(dir string) (*State, error) {
	if _, err := os.Stat(dir); err != nil {
		return nil, err
	}
	v, err := readView(tree(dir))
	if err != nil {
		return nil, err
	}
	defer v.close()
	s := &State{Dir: dir, Phase: "unknown", Building: v.building, Maps: mapStates(v.maps)}
	if s.Holder, err = FindHolder(dir); err != nil {
		return nil, err
	}
	s.readSuper(v)
	if s.Damages, err = v.diagnose(); err != nil {
		return nil, err
	}
	if err := s.readPods(v); err != nil {
		return nil, err
	}
	for _, n := range sortedKeys(v.generations) {
		s.Generations = append(s.Generations, v.generationState(n))
	}
	for _, hook := range v.hooks() {
		state, err := v.hookState(hook)
		if err != nil {
			return nil, fmt.Errorf("hook %s: %w", hook, err)
		}
		s.Hooks = append(s.Hooks, state)
	}
	s.Others, err = v.others()
	return s, err
}

// FindHolder finds who holds the lease of a tree, nil if nobody does or there is no tree. The lock is only looked at: to
// try it would get in an agent's way.
func FindHolder(path string) (*Holder, error) {
	dir, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	pid, err := holder(dir)
	if err != nil || pid == 0 {
		return nil, err
	}
	return &Holder{PID: pid, Command: command(pid)}, nil
}

func (s *State) readSuper(v *view) {
	if v.super == nil {
		return
	}
	w, p := v.super.word(), v.super.phase()
	s.Epoch, s.Floor, s.Serve, s.Canary, s.Share = w.Epoch(), w.Floor(), w.Serve(), w.Canary(), w.Share()
	s.Phase, s.Last, s.Previous, s.Events = p.String(), p.Last(), p.Previous(), v.super.events()
	block := *v.super.block
	size := uint64(len(block.Log))
	for i := max(block.Steps, size) - size; i < block.Steps; i++ {
		e := block.Log[i%size]
		s.Steps = append(s.Steps, StepState{time.Duration(e.When), e.Epoch, e.Generation, Step(e.Step).String()})
	}
}

func (s *State) readPods(v *view) error {
	for pod, hooks := range v.pods {
		s.Pods++
		s.PodLinks += len(hooks)
		links, err := v.tree.attached(join(pathPods, pod))
		var other *strayError
		if errors.As(err, &other) {
			s.Damages = append(s.Damages, Damage{join(pathPods, pod), err.Error(), evict})
			continue
		}
		if err != nil {
			return err
		}
		if slices.ContainsFunc(links, func(a Attached) bool { return a.Defunct }) {
			s.PodsDefunct++
		}
	}
	return nil
}

// hooks names every hook that the tree knows of.
func (v *view) hooks() []string {
	names := append(sortedKeys(v.calls), sortedKeys(v.entries)...)
	names = append(names, sortedKeys(v.links)...)
	slices.Sort(names)
	return slices.Compact(names)
}

func (v *view) generationState(n uint16) GenerationState {
	g := v.generations[n]
	s := GenerationState{Number: n, Live: slices.Contains(v.word().Live(), n), Maps: mapStates(g.Maps)}
	if g.record != nil {
		s.Label, s.Role, s.Sizes = g.record.Label, g.record.Role, g.record.allowed()
	}
	if v.super != nil {
		digest := v.super.digest(n)
		s.Digest = hex.EncodeToString(digest[:])
	}
	for _, name := range sortedKeys(g.Programs) {
		s.Programs = append(s.Programs, ProgramState{name, programID(g.Programs[name])})
	}
	return s
}

func mapStates(all map[string]*ebpf.Map) []MapState {
	var states []MapState
	for _, name := range sortedKeys(all) {
		s := MapState{Name: name}
		if about, err := all[name].Info(); err == nil {
			s.ID, _ = about.ID()
			s.Memory, _ = about.Memlock()
			s.Type, s.MaxEntries = about.Type.String(), about.MaxEntries
		}
		states = append(states, s)
	}
	return states
}

func (v *view) hookState(hook string) (HookState, error) {
	s := HookState{Name: hook, At: entryAt(v.entries[hook]).String()}
	if p := v.entries[hook]; p != nil {
		s.Entry, s.OK = programID(p), true
	}
	if l := v.links[hook]; l != nil {
		s.At, s.Link, s.Target = l.at.String(), uint32(l.info.ID), l.where()
		s.OK = s.OK && !l.defunct && l.info.Program == s.Entry
	} else if entryAt(v.entries[hook]).node() {
		s.OK = false
	}
	if v.calls[hook] == nil {
		s.OK = false
		return s, nil
	}
	for _, n := range sortedKeys(v.generations) {
		id, err := slot(v.calls[hook], Base(n))
		if err != nil {
			return s, err
		}
		s.Slots = append(s.Slots, GenerationSlot{n, id})
	}
	return s, nil
}

// entryAt tells from a program's type what it is attached to.
func entryAt(p *ebpf.Program) Where {
	switch {
	case p == nil:
		return 0
	case p.Type() == ebpf.SkLookup:
		return Netns
	case p.Type() == ebpf.SchedCLS:
		return Tcx
	case p.Type() == ebpf.SkMsg:
		return Sockhash
	}
	return Cgroup
}

// where names what a link is attached to.
func (l *attachment) where() string {
	switch {
	case l.defunct:
		return "nothing"
	case l.at == Cgroup:
		return cgroupName(l.target)
	case l.at == Sockhash:
		return fmt.Sprintf("map %d", l.target)
	}
	return fmt.Sprintf("%v %d", l.at, l.target)
}
