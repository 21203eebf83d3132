// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"fmt"
	"slices"
	"time"

	"github.com/evenkeel/evenkeel/upgrade/migrate"
)

// Action is what an upgrade does about one map.
type Action string

// The actions.
const (
	ActionKeep    Action = "kept"     // the same map serves both releases
	ActionMigrate Action = "migrated" // entries move while traffic goes on writing them
	ActionCopy    Action = "rebuilt"  // only its size differs and only the owner writes it: made anew and compared
	ActionCreate  Action = "created"  // the release before had none, or every generation has its own
	ActionRemove  Action = "removed"  // the release after has none
)

// Plan says what an upgrade would do.
type Plan struct {
	Dir      string        `json:"dir"`
	From     ReleaseName   `json:"from"`
	To       ReleaseName   `json:"to"`
	Same     bool          `json:"same"`     // the release serves already: nothing would be done
	Move     string        `json:"move"`     // "next": old connections finish on the old generation; "floor": all are carried over
	Canary   bool          `json:"canary"`   // it can be given to a share of new connections first
	Rollback string        `json:"rollback"` // how one would go back: "word", "bridge" or "none"
	Seconds  float64       `json:"seconds"`  // estimated, for moving entries
	Memory   uint64        `json:"memory"`   // bytes that it takes for as long as both generations are there, estimated
	Maps     []MapPlan     `json:"maps"`
	Hooks    []HookPlan    `json:"hooks"`
	Retires  []uint16      `json:"retires"` // generations that go before it begins
	Risks    []string      `json:"risks"`
	Refusals []Change      `json:"refusals"` // why it would be refused
	Took     time.Duration `json:"-"`
}

// ReleaseName names a release.
type ReleaseName struct {
	Generation uint16 `json:"generation,omitempty"`
	Digest     string `json:"digest"`
	Label      string `json:"label,omitempty"`
}

// MapPlan is what becomes of a map.
type MapPlan struct {
	Name    string  `json:"name"`
	From    string  `json:"from,omitempty"` // the map whose entries it takes over, if that has another name
	Action  Action  `json:"action"`
	Entries uint64  `json:"entries"`           // that there are
	Room    uint32  `json:"room"`              // for entries, afterwards
	Had     uint32  `json:"had,omitempty"`     // before
	Seconds float64 `json:"seconds,omitempty"` // estimated
	Memory  uint64  `json:"memory,omitempty"`  // bytes, estimated, of what is made
	Note    string  `json:"note,omitempty"`
}

// HookPlan is what becomes of a hook that one of the two releases does not have.
type HookPlan struct {
	Name   string `json:"name"`
	Action Action `json:"action"` // created or removed
}

// moves reports whether the plan has a map of an action.
func (p *Plan) moves(a Action) bool {
	return slices.ContainsFunc(p.Maps, func(m MapPlan) bool { return m.Action == a })
}

// PlanUpgrade says what an upgrade of a tree to a release would do. It takes no lock and changes nothing. It returns
// [ErrNotInstalled] and [ErrNoGeneration].
func PlanUpgrade(dir string, to DataPlane) (*Plan, error) {
	if err := CheckPlace(dir); err != nil {
		return nil, err
	}
	target, err := readObject(to)
	if err != nil {
		return nil, err
	}
	v, err := readView(tree(dir))
	if err != nil {
		return nil, err
	}
	defer v.close()
	switch {
	case v.super == nil && v.pins == 0:
		return nil, ErrNotInstalled
	case v.super == nil:
		return nil, fmt.Errorf("plan for %s: super is gone: start the agent", dir)
	case v.word().Serve() == 0:
		return nil, ErrNoGeneration
	}
	if err := target.measure(v); err != nil {
		return nil, err
	}
	from, err := v.basis(target, AcceptAny)
	if err != nil {
		return nil, err
	}
	return v.plan(from, target)
}

// Plan says what [Store.Upgrade] would do.
func (s *Store) Plan() (*Plan, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.view.plan(s.object, s.release)
}

func (v *view) plan(from, to *object) (*Plan, error) {
	word := v.word()
	serving := v.generations[word.Serve()]
	if serving == nil {
		return nil, fmt.Errorf("plan for %s: generation %d, which serves, is not pinned: restart the agent, which restores it",
			v.tree, word.Serve())
	}
	p := &Plan{
		Dir: string(v.tree), Maps: []MapPlan{}, Hooks: []HookPlan{}, Retires: []uint16{}, Risks: []string{}, Refusals: []Change{},
		From: ReleaseName{Generation: word.Serve(), Digest: fmt.Sprintf("%x", v.super.digest(word.Serve()))},
		To:   ReleaseName{Digest: fmt.Sprintf("%x", to.digest), Label: to.Label},
	}
	if serving.record != nil {
		p.From.Label = serving.record.Label
	}
	if p.Same = v.serves(to); p.Same {
		return p, nil
	}
	if err := p.planMaps(serving, from, to); err != nil {
		return nil, fmt.Errorf("plan for %s: %w", v.tree, err)
	}
	if err := p.planCommon(v, serving, to); err != nil {
		return nil, fmt.Errorf("plan for %s: %w", v.tree, err)
	}
	p.planHooks(serving, from, to)
	p.planMove(v, from, to)
	return p, nil
}

func (p *Plan) planHooks(serving *Generation, from, to *object) {
	has := func(o *object, h Hook) bool {
		return slices.ContainsFunc(o.Hooks, func(x Hook) bool { return x.Name == h.Name })
	}
	for _, h := range to.Hooks {
		if !has(from, h) {
			p.Hooks = append(p.Hooks, HookPlan{h.Name, ActionCreate})
			continue
		}
		i := slices.IndexFunc(from.Hooks, func(x Hook) bool { return x.Name == h.Name })
		if f := from.Hooks[i]; f.Attach != h.Attach || f.At != h.At || f.Map != h.Map {
			p.Refusals = append(p.Refusals, Change{Name: "hook " + h.Name, Expected: describeHook(h), Found: describeHook(f)})
		}
	}
	for _, h := range from.Hooks {
		if !has(to, h) {
			p.Hooks = append(p.Hooks, HookPlan{h.Name, ActionRemove})
		}
	}
}

func describeHook(h Hook) string { return fmt.Sprintf("%v at a %v", h.Attach, h.At) }

// planMove says how the word would go, and how it would come back.
func (p *Plan) planMove(v *view, from, to *object) {
	room := p.room(from, to)
	numbers, retired := v.numbers(room)
	p.Retires = append(p.Retires, retired...)
	layout := p.moves(ActionMigrate) || p.moves(ActionCopy)
	p.Canary, p.Move, p.Rollback = !layout, "next", "word"
	if layout || len(numbers) == 0 || numbers[0] != after(v.word().Serve()) {
		p.Move = "floor"
	}
	switch {
	case layout && sameCode(from, to):
		p.Rollback = "none"
		p.Risks = append(p.Risks, "only sizes differ, which are the node's: there is nothing to go back to but other sizes")
	case p.moves(ActionMigrate) && p.reversible(from):
		p.Rollback = "bridge"
	case p.moves(ActionMigrate):
		p.Rollback = "none"
		p.Risks = append(p.Risks, "the release that serves cannot bridge: there is no way back that keeps what is migrated")
	}
	if layout {
		p.Risks = append(p.Risks, "the layout of a shared map changes, so no share of the connections can try it first: "+
			"try it on one node")
	}
	for _, n := range retired {
		p.Risks = append(p.Risks, fmt.Sprintf("generation %d makes room: what runs it is carried over, and nobody can go back "+
			"to it", n))
	}
}

// reversible reports whether the release that serves can read what the next one wrote.
func (p *Plan) reversible(from *object) bool {
	states := migrate.States(from.spec)
	return !slices.ContainsFunc(p.Maps, func(m MapPlan) bool {
		return m.Action == ActionMigrate && !slices.Contains(states, m.source())
	})
}

func (m *MapPlan) source() string {
	if m.From != "" {
		return m.From
	}
	return m.Name
}

// pairs are the maps that a bridge is about.
func (p *Plan) pairs() []mapPair {
	var all []mapPair
	for _, m := range p.Maps {
		if m.Action == ActionMigrate {
			all = append(all, mapPair{Target: m.Name, Source: m.source()})
		}
	}
	return all
}

// room is how many generations the upgrade makes.
func (p *Plan) room(from, to *object) int {
	n := 1
	if p.moves(ActionMigrate) {
		n++ // the bridge
	}
	layout := p.moves(ActionMigrate) || p.moves(ActionCopy)
	if layout && !sameCode(from, to) && (!p.moves(ActionMigrate) || p.reversible(from)) {
		n++ // the way back
	}
	return n
}

// sameCode reports whether two releases differ in nothing but sizes.
func sameCode(a, b *object) bool {
	x, y := a.record, b.record
	x.Sizes, y.Sizes = nil, nil
	one, err1 := x.identity()
	two, err2 := y.identity()
	return err1 == nil && err2 == nil && one == two
}
