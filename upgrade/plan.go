// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/cilium/ebpf"

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
	if err := p.planMaps(v, serving, from, to); err != nil {
		return nil, fmt.Errorf("plan for %s: %w", v.tree, err)
	}
	if err := p.planCommon(v, serving, to); err != nil {
		return nil, fmt.Errorf("plan for %s: %w", v.tree, err)
	}
	p.planHooks(serving, from, to)
	p.planMove(v, from, to)
	return p, nil
}

// planMaps decides about the maps of a generation.
func (p *Plan) planMaps(v *view, serving *Generation, from, to *object) error {
	states := migrate.States(to.spec)
	taken := make(map[string]bool) // sources of migrations
	for _, name := range to.own() {
		want, m := to.spec.Maps[name], serving.Maps[name]
		one := MapPlan{Name: name, Action: ActionCreate, Room: want.MaxEntries, Memory: footprint(want)}
		expected, found, sized := "", "", false
		if m != nil {
			var err error
			if expected, found, sized, err = differ(want, m); err != nil {
				return err
			}
			one.Had = m.MaxEntries()
		}
		source := sourceOf(name, serving)
		switch {
		case slices.Contains(to.Private, name):
		case m != nil && expected == found:
			one.Action, one.Memory = ActionKeep, 0
		case slices.Contains(states, name) && source != "" && (source != name || sized): // a layout has a number of its own
			one.Action, taken[source] = ActionMigrate, true
			if source != name {
				one.From = source
			}
			if err := one.measure(serving.Maps[source], 1.6e-6); err != nil {
				return err
			}
		case m == nil:
		case sized:
			one.Action = ActionCopy
			if err := one.measure(m, 1.2e-6); err != nil {
				return err
			}
			if writes(from, name) {
				one.Note = "programs write it, and its release cannot bridge: what they write while it is copied is lost"
				p.Risks = append(p.Risks, fmt.Sprintf("map %s: %s", name, one.Note))
			}
		default:
			p.Refusals = append(p.Refusals, Change{Name: join(generationPath(serving.Number), "maps", name),
				Expected: expected, Found: found})
			one.Action, one.Note = ActionMigrate, "its layout changed, its schema number did not"
		}
		p.addMap(v, one, want)
	}
	for _, name := range sortedKeys(serving.Maps) {
		if to.spec.Maps[name] == nil && !taken[name] {
			p.Maps = append(p.Maps, MapPlan{Name: name, Action: ActionRemove, Had: serving.Maps[name].MaxEntries()})
		}
	}
	return nil
}

// planCommon decides about the maps that all generations share.
func (p *Plan) planCommon(v *view, serving *Generation, to *object) error {
	for _, name := range to.Frozen {
		want, m := to.spec.Maps[name], v.maps[name]
		one := MapPlan{Name: name, Action: ActionKeep, Room: want.MaxEntries}
		if m == nil {
			one.Action, one.Memory = ActionCreate, footprint(to.roomy(want))
			p.addMap(v, one, want)
			continue
		}
		one.Had = min(m.MaxEntries(), cmp.Or(serving.limit(name), m.MaxEntries()))
		if want.MaxEntries < one.Had {
			var err error
			if one.Entries, err = countEntries(m); err != nil {
				return fmt.Errorf("count entries of %s: %w", name, err)
			}
		}
		expected, found, sized, err := differ(within(want, m), m)
		switch {
		case err != nil:
			return err
		case expected == found:
		default:
			change := Change{Name: join(pathMaps, name), Expected: expected, Found: found}
			if sized {
				change.Entries = [2]uint32{want.MaxEntries, m.MaxEntries()}
			}
			p.Refusals = append(p.Refusals, change)
		}
		p.addMap(v, one, want)
	}
	for _, name := range sortedKeys(v.maps) {
		if !slices.Contains(to.Frozen, name) {
			p.Refusals = append(p.Refusals, Change{Name: join(pathMaps, name), Expected: "not there", Found: "there"})
		}
	}
	return nil
}

// addMap files what becomes of a map, and refuses what cannot fit.
func (p *Plan) addMap(_ *view, one MapPlan, want *ebpf.MapSpec) {
	evicts := want.Type == ebpf.LRUHash || want.Type == ebpf.LRUCPUHash
	if one.Entries > uint64(want.MaxEntries) {
		if evicts {
			one.Note = fmt.Sprintf("it has room for %d of %d entries: the least used go", want.MaxEntries, one.Entries)
			p.Risks = append(p.Risks, fmt.Sprintf("map %s: %s", one.Name, one.Note))
		} else {
			p.Refusals = append(p.Refusals, Change{Name: one.Name, Expected: fmt.Sprintf("room for %d entries", one.Entries),
				Found: fmt.Sprintf("room for %d", want.MaxEntries), Entries: [2]uint32{want.MaxEntries, one.Had}})
		}
	}
	p.Seconds += one.Seconds
	p.Memory += one.Memory
	p.Maps = append(p.Maps, one)
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

// differ compares a map with what a release wants; sized says that nothing but the number of entries differs.
func differ(want *ebpf.MapSpec, m *ebpf.Map) (expected, found string, sized bool, err error) {
	expected, found, err = compareMap(want, m)
	if err != nil || expected == found || m.MaxEntries() == want.MaxEntries {
		return expected, found, false, err
	}
	resized := want.Copy()
	resized.MaxEntries = m.MaxEntries()
	e, f, err := compareMap(resized, m)
	return expected, found, e == f, err
}

// sourceOf finds the map whose entries another takes over: that of the same name, or else of another schema of it.
func sourceOf(name string, g *Generation) string {
	if g.Maps[name] != nil {
		return name
	}
	base, _ := migrate.Schema(name)
	for _, other := range sortedKeys(g.Maps) {
		if b, _ := migrate.Schema(other); b == base && !migrate.IsSide(other) {
			return other
		}
	}
	return ""
}

// writes reports whether programs of a release may write a map: any map that is no array. What the owner alone writes
// by a program of its own (publish) are arrays.
func writes(o *object, name string) bool {
	s := o.spec.Maps[name]
	return s != nil && (s.Type == ebpf.LRUHash || s.Type == ebpf.LRUCPUHash)
}

// measure counts entries and estimates the time that they take.
func (m *MapPlan) measure(of *ebpf.Map, each float64) error {
	n, err := countEntries(of)
	if err != nil {
		return fmt.Errorf("count entries of %s: %w", m.Name, err)
	}
	m.Entries = n
	m.Seconds = 0.05 + float64(n)*each // grace periods, then a pass that copies and one that compares
	return nil
}

// countEntries counts those of a hash, and the last one of an array that is not zero.
func countEntries(m *ebpf.Map) (n uint64, err error) {
	if m.Type() == ebpf.Array {
		return lastUsed(m)
	}
	err = eachBatch(m, func(_, _ []byte, count int) error {
		n += uint64(count)
		return nil
	})
	return n, err
}

// footprint estimates the memory of a map, in bytes.
func footprint(s *ebpf.MapSpec) uint64 {
	each := uint64((s.KeySize+7)&^7) + uint64((s.ValueSize+7)&^7)
	switch s.Type {
	case ebpf.Array:
		each = uint64((s.ValueSize + 7) &^ 7)
	case ebpf.Hash, ebpf.LRUHash:
		each += 64
	}
	if s.Flags&1 != 0 { // BPF_F_NO_PREALLOC: buckets only
		each = 16
	}
	return each * uint64(s.MaxEntries)
}
