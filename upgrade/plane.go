// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"context"
	"fmt"
	"regexp"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/evenkeel/evenkeel/upgrade/migrate"
)

// Where says what a hook's entry program is attached to.
type Where uint8

// Places to attach to. Those for the whole node are attached by [Open], the others for each pod by [Pods.Attach].
const (
	Cgroup   Where = iota + 1 // the cgroup of [Options.Cgroup], for the whole node
	Sockhash                  // the map [Hook.Map], for the whole node; needs Linux 6.10
	Netns                     // a pod's network namespace: sk_lookup
	Tcx                       // a pod's interface: tcx ingress, first in order
)

func (w Where) node() bool { return w == Cgroup || w == Sockhash }

// String names the place.
func (w Where) String() string {
	return [...]string{"nowhere", "cgroup", "sockhash", "netns", "tcx"}[min(w, Tcx)]
}

// Hook is one place where traffic meets programs.
type Hook struct {
	Name    string          // names pins and the prog array calls_NAME
	Entry   string          // the program that is attached once and jumps into the prog array
	Program string          // the main program of every generation there, slot 0
	At      Where           // what Entry is attached to
	Attach  ebpf.AttachType // of Entry and of Program
	Map     string          // for Sockhash, the map; it is one of the frozen
}

// DataPlane is a release's object file and the parts that its maps and programs play. Maps that are neither super, nor
// a hook's calls_NAME, nor named in Frozen or Private belong to a generation and are shared with the next as long as
// their layout is the same. Global data (.data, .bss) is refused: it would be lost with its generation.
type DataPlane struct {
	Object   []byte   // ELF
	Hooks    []Hook   // in the order in which they are attached
	Frozen   []string // maps whose layout never changes; super goes without saying
	Private  []string // maps that every generation has its own of
	Programs []string // programs of a generation that are pinned, but called by no hook

	// Stamps is the frozen socket storage whose values begin with the stamp, of two bytes: by it is known what sockets
	// run. May be empty; then numbers of generations cannot come round, and old ones do not retire by themselves.
	Stamps string
	// Configure sets constants; they are part of a release's identity. May be nil.
	Configure func(spec *ebpf.CollectionSpec) error
	// Number names the constant, or the member of one ("config.generation"), of two bytes, that is set to the number of
	// the generation, and to 0 for entry programs. May be empty.
	Number string

	// Trial is given the release, loaded once more with maps of its own, before it is built to serve, and returns what
	// is wrong with it: programs that do not answer as they should. May be nil; it is no part of the identity.
	Trial func(ctx context.Context, loaded *ebpf.Collection) error

	Sizes map[string]uint32 // max_entries by map, where they are not the object's; of frozen maps with Room a limit
	// Room is how many entries a frozen map is made for, where that is more than Sizes says: it can never be made anew,
	// so Sizes is a limit there, for whoever writes the map to keep. It is no part of the identity.
	Room  map[string]uint32
	Label string // names the release to people, and decides nothing
}

// maxName is how much of a name the kernel keeps for maps and programs; recovery finds lost pins by it.
const maxName = 15

// nameForm does not count: an expression that does is compiled, by every process that starts, into that many.
var nameForm = regexp.MustCompile(`^[A-Za-z0-9_:-]+$`)

// checkName refuses what cannot be a pin or would be taken for one that is being built.
func checkName(kind, name string) error {
	if len(name) > 200 || !nameForm.MatchString(name) {
		return fmt.Errorf("%s %q: a name is 1 to 200 letters, digits, '_', ':' or '-'", kind, name)
	}
	if building(name) {
		return fmt.Errorf("%s %q: names that end in %s or %s are taken", kind, name, suffixNew, suffixDead)
	}
	return nil
}

// passName names the program that a generation has at a hook that its release does not know.
func passName(hook string) string { return "pass_" + hook }

func callsName(hook string) string { return "calls_" + hook }

// check refuses a data plane that contradicts its own object.
func (p *DataPlane) check(spec *ebpf.CollectionSpec) error {
	ours, err := loadSuper()
	if err != nil {
		return err
	}
	want, found := ours.Maps[superMapSuper], spec.Maps[superMapSuper]
	if found == nil || describeMap(found) != describeMap(want) {
		return fmt.Errorf("map %s: the object needs it as word.h has it, %s", superMapSuper, describeMap(want))
	}
	roles := map[string]string{superMapSuper: "super"}
	for _, h := range p.Hooks {
		if err := p.checkHook(h, spec); err != nil {
			return fmt.Errorf("hook %q: %w", h.Name, err)
		}
		if roles[callsName(h.Name)] != "" {
			return fmt.Errorf("hook %q: it is there twice", h.Name)
		}
		roles[callsName(h.Name)] = "prog array"
	}
	for role, names := range map[string][]string{"frozen": p.Frozen, "private": p.Private} {
		for _, name := range names {
			if other := roles[name]; other != "" {
				return fmt.Errorf("map %q: it cannot be %s and %s", name, role, other)
			}
			if spec.Maps[name] == nil {
				return fmt.Errorf("map %q: the object has none of that name", name)
			}
			roles[name] = role
		}
	}
	for name := range p.Sizes {
		if spec.Maps[name] == nil {
			return fmt.Errorf("size of map %q: the object has none of that name", name)
		}
	}
	for name := range spec.Maps {
		if len(name) > maxName && !internal(name) && !migrate.Auxiliary(name) {
			return fmt.Errorf("map %q: the kernel keeps only %d letters of a name", name, maxName)
		}
	}
	for _, name := range p.Programs {
		if spec.Programs[name] == nil {
			return fmt.Errorf("program %q: the object has none of that name", name)
		}
	}
	return nil
}

func (p *DataPlane) checkHook(h Hook, spec *ebpf.CollectionSpec) error {
	if err := checkName("name", h.Name); err != nil {
		return err
	}
	entry, program := spec.Programs[h.Entry], spec.Programs[h.Program]
	if entry == nil || program == nil {
		return fmt.Errorf("the object lacks program %q or %q", h.Entry, h.Program)
	}
	// The kernel lets a link of one attach type run a program of another, so it is checked here.
	for _, s := range []*ebpf.ProgramSpec{entry, program} {
		if s.Type != entry.Type || s.AttachType != h.Attach {
			return fmt.Errorf("program %s is %v/%v, the hook is %v/%v", s.Name, s.Type, s.AttachType, entry.Type, h.Attach)
		}
	}
	calls := spec.Maps[callsName(h.Name)]
	if calls == nil || calls.Type != ebpf.ProgramArray || calls.MaxEntries != uint32(places*slotsEach) {
		return fmt.Errorf("the object needs a prog array %s of %d entries", callsName(h.Name), places*slotsEach)
	}
	switch {
	case h.At == Cgroup:
	case h.At == Netns && entry.Type == ebpf.SkLookup:
	case h.At == Tcx && entry.Type == ebpf.SchedCLS && h.Attach == ebpf.AttachTCXIngress:
	case h.At == Sockhash && entry.Type == ebpf.SkMsg:
		if !slices.Contains(p.Frozen, h.Map) {
			return fmt.Errorf("map %q is not frozen: sockets stay in it across generations", h.Map)
		}
	default:
		return fmt.Errorf("program %s (%v) cannot be attached to a %v", h.Entry, entry.Type, h.At)
	}
	return nil
}
