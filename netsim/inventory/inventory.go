// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"

	"github.com/evenkeel/evenkeel/netsim"
)

// Kind is a kind of object.
type Kind string

// The kinds.
const (
	Program    Kind = "program"
	Map        Kind = "map"
	Link       Kind = "link"       // BPF link
	Pin        Kind = "pin"        // file, or directory, of a BPF file system
	Namespace  Kind = "namespace"  // network namespace
	Interface  Kind = "interface"  // network interface
	Cgroup     Kind = "cgroup"     // of the unified hierarchy
	Mount      Kind = "mount"      // in the mount namespace of this process
	Process    Kind = "process"    // of one of the lab's cgroups
	Descriptor Kind = "descriptor" // file descriptors of a process that refer to one kind of thing
)

// Object is something that a lab has.
type Object struct {
	Kind Kind `json:"kind"`
	// Name is the same in every lab of a topology: paths are below the lab's directories.
	Name string `json:"name"`
	// Number tells it from others of the name: the kernel's id of a program, map or link, the inode of a pin, the cookie
	// of a namespace, the index of an interface, the inode of a cgroup, a process's pid; of descriptors it is how many
	// there are. 0 is none.
	Number uint64 `json:"number,omitempty"`
	// Held tells that no pin leads to a program, map or link: it goes with the process that holds it, which the name says.
	Held bool `json:"held,omitempty"`
}

// String is "map services (17)".
func (o Object) String() string {
	if o.Number == 0 {
		return fmt.Sprintf("%s %s", o.Kind, o.Name)
	}
	return fmt.Sprintf("%s %s (%d)", o.Kind, o.Name, o.Number)
}

// Inventory is what a lab has at one time, sorted.
type Inventory []Object

// Of lists what a lab has: what is below its directories, the processes of its cgroups, and the BPF objects that its
// pins and processes lead to. What goes away meanwhile may or may not be in it.
func Of(lab *netsim.Lab) (Inventory, error) {
	return takeAt(lab.Places())
}

// takeAt lists what there is at the places of a lab.
func takeAt(p netsim.Places) (Inventory, error) {
	var all Inventory
	processes, err := processesOf(p.Cgroup)
	if err != nil {
		return nil, err
	}
	pins, roots, err := pinsBelow(p.Pins)
	if err != nil {
		return nil, err
	}
	all = append(all, pins...)
	all = append(all, processes...)
	seen := map[bpfObject]bool{}
	all = append(all, reachable(roots, seen)...)
	for _, process := range processes {
		held, descriptors := heldBy(process.Number, process.Name)
		all = append(all, descriptors...)
		for _, o := range reachable(held, seen) {
			o.Name, o.Held = o.Name+" of "+process.Name, true
			all = append(all, o)
		}
	}
	for _, list := range []func(netsim.Places) (Inventory, error){namespaces, cgroups, mounts} {
		part, err := list(p)
		if err != nil {
			return nil, err
		}
		all = append(all, part...)
	}
	slices.SortFunc(all, compare)
	return all, nil
}

func compare(a, b Object) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Number, b.Number))
}

// Only returns the objects of some kinds.
func (i Inventory) Only(kinds ...Kind) Inventory {
	return slices.DeleteFunc(slices.Clone(i), func(o Object) bool { return !slices.Contains(kinds, o.Kind) })
}

// ByName forgets the numbers of all objects: they may be other ones, as long as there are as many of the same names.
// Numbers of generations and cookies of namespaces in names are forgotten, too; the count of descriptors stays.
func (i Inventory) ByName() Inventory {
	return i.forget(func(Object) bool { return true })
}

// Steady forgets the numbers of processes and of what only they hold: what stays the same when a process is replaced by
// another one has to be the very same.
func (i Inventory) Steady() Inventory {
	return i.forget(func(o Object) bool { return o.Held || o.Kind == Process })
}

func (i Inventory) forget(which func(Object) bool) Inventory {
	named := slices.Clone(i)
	for n := range named {
		o := &named[n]
		if o.Kind == Descriptor || !which(*o) {
			continue
		}
		o.Number = 0
		if o.Kind == Pin {
			o.Name = numbered.ReplaceAllString(o.Name, "$1/N")
		}
	}
	slices.SortFunc(named, compare)
	return named
}

// numbered are the directories of generations and pods among pins.
var numbered = regexp.MustCompile(`(/gen|/links/pods)/\d+`)

// Difference lists what one inventory has and another has not.
func Difference(before, after Inventory) (gone, added Inventory) {
	for len(before) > 0 || len(after) > 0 {
		switch {
		case len(after) == 0 || len(before) > 0 && compare(before[0], after[0]) < 0:
			gone, before = append(gone, before[0]), before[1:]
		case len(before) == 0 || compare(before[0], after[0]) > 0:
			added, after = append(added, after[0]), after[1:]
		default:
			before, after = before[1:], after[1:]
		}
	}
	return gone, added
}

// Lines describes what has gone and what was added, one object a line.
func Lines(gone, added Inventory) []string {
	var lines []string
	for _, o := range gone {
		lines = append(lines, "- "+o.String())
	}
	for _, o := range added {
		lines = append(lines, "+ "+o.String())
	}
	return lines
}

// Alive returns those of the inventory of a lab that are there, wherever they are: what a lab that is down, or an agent
// that was removed, has left behind. Of BPF objects the kernel gives numbers in turn, so another one is not taken for it.
// The kernel frees such objects, and namespaces, only some time after the last use: ask again.
func (i Inventory) Alive(p netsim.Places) (Inventory, error) {
	now, err := takeAt(p)
	if err != nil {
		return nil, err
	}
	objects, err := allBPF()
	if err != nil {
		return nil, err
	}
	spaces, err := allNamespaces()
	if err != nil {
		return nil, err
	}
	var left Inventory
	for _, o := range i {
		is := false
		switch o.Kind {
		case Program, Map, Link:
			is = objects[bpfObject{o.Kind, uint32(o.Number)}]
		case Namespace:
			is = spaces[o.Number]
		case Process:
			is = processName(o.Number) == o.Name
		case Interface, Descriptor: // go with their namespace, or process
		default:
			_, is = slices.BinarySearchFunc(now, o, compare)
		}
		if is {
			left = append(left, o)
		}
	}
	return left, nil
}

// errGone is of something that has gone while it was looked at.
var errGone = errors.New("gone")
