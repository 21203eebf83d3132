// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"errors"
	"fmt"
	"strings"
)

var (
	// ErrNotInstalled says that there is no tree at the path.
	ErrNotInstalled = errors.New("no data plane is installed there: start the agent to install it, or name another directory")
	// ErrNoGeneration says that there is a tree, but none of its generations serves yet.
	ErrNoGeneration = errors.New("no generation serves yet: start the agent first")
)

// HeldError says that another process holds the lease.
type HeldError struct {
	Dir     string
	PID     int    // 0 if the kernel shows none in this PID namespace
	Command string // command line of PID, empty if it could not be read
}

func (e *HeldError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("%s is held by a process outside this PID namespace: stop it, or take over from there", e.Dir)
	}
	return fmt.Sprintf("%s is held by pid %d (%s): stop it, or take over", e.Dir, e.PID, e.Command)
}

// StaleError says that the word is not the expected one: either the caller's decision is out of date, or another
// process owns the tree since. Nothing was changed.
type StaleError struct {
	Expect, Found Word
}

func (e *StaleError) Error() string {
	if e.Expect.Epoch() != e.Found.Epoch() {
		return fmt.Sprintf("epoch %d is over, %d owns the state now: stop this process", e.Expect.Epoch(), e.Found.Epoch())
	}
	return fmt.Sprintf("expected the word {%v}, found {%v}: decide again", e.Expect, e.Found)
}

// Change is one thing in which a release and the pinned state differ.
type Change struct {
	Name     string `json:"name"`     // of the map, program or hook
	Expected string `json:"expected"` // by this release
	Found    string `json:"found"`    // pinned
	// Entries are the sizes, expected and found, of a map that differs in nothing else.
	Entries [2]uint32 `json:"entries"`
}

// RefusedError says that a release cannot work with the pinned state, which is whole and was left as it was.
type RefusedError struct {
	Changes []Change
}

func (e *RefusedError) Error() string {
	return "the pinned state, which serves on untouched, is not what this release expects: " + Describe(e.Changes) +
		"; start with the release and options that it was made with"
}

// Describe names changes in one line, those that are alike once: a cgroup is that of every hook.
func Describe(changes []Change) string {
	type difference struct{ found, expected string }
	names := make(map[difference][]string)
	var order []difference
	for _, c := range changes {
		d := difference{c.Found, c.Expected}
		if names[d] == nil {
			order = append(order, d)
		}
		names[d] = append(names[d], c.Name)
	}
	parts := make([]string, len(order))
	for i, d := range order {
		parts[i] = fmt.Sprintf("%s: found %s, expected %s", strings.Join(names[d], ", "), d.found, d.expected)
	}
	return strings.Join(parts, "; ")
}

// Damage is one thing that is wrong with a tree.
type Damage struct {
	Path string `json:"path"` // relative to the tree
	What string `json:"what"`
	Fix  string `json:"fix"` // what to do about it
}

func (d Damage) String() string { return fmt.Sprintf("%s: %s; %s", d.Path, d.What, d.Fix) }

// DamageError says that the tree has damage that cannot be repaired from what is left. What serves was not touched.
type DamageError struct {
	Dir     string
	Damages []Damage
}

func (e *DamageError) Error() string {
	lines := make([]string, len(e.Damages))
	for i, d := range e.Damages {
		lines[i] = d.String()
	}
	return fmt.Sprintf("%s is damaged: %s", e.Dir, strings.Join(lines, "; "))
}

// ForeignError says that an uninstall left what is not its own, and the directories that hold it.
type ForeignError struct {
	Paths []string
}

func (e *ForeignError) Error() string {
	return "left in place, for it is not part of the data plane: " + strings.Join(e.Paths, ", ")
}
