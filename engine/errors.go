// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"errors"
	"fmt"

	"github.com/evenkeel/evenkeel/bpf"
)

// Reasons for which an object, or a part of one, was not applied. They are wrapped in *ObjectError.
var (
	// ErrFull: a map has no room. Delete something or start the agent with a larger value of the flag; what did not
	// fit is tried again whenever room was made.
	ErrFull = errors.New("no room")
	// ErrConflict: another service has the same address, port and protocol. The one that was there first keeps it.
	ErrConflict = errors.New("taken by another service")
	// ErrInvalid: the object says something that cannot be. What was known of it before goes on being served.
	ErrInvalid = errors.New("invalid")
)

// ObjectError says which object of which source was not applied as a whole, and why.
type ObjectError struct {
	Kind   Kind
	Name   string
	Origin string // where the source read it; may be empty
	// Map and Flag name the map that is full and the flag of the agent that sizes it; else both are empty.
	Map, Flag string
	Err       error
}

func (e *ObjectError) Error() string {
	text := fmt.Sprintf("apply %s %s", e.Kind, e.Name)
	if e.Origin != "" {
		text += " (" + e.Origin + ")"
	}
	text += ": " + e.Err.Error()
	if e.Flag != "" {
		text += fmt.Sprintf("; map %s is full, raise %s or delete services", e.Map, e.Flag)
	}
	return text
}

func (e *ObjectError) Unwrap() error { return e.Err }

// full is the error of an object for which a map has no room.
func full(kind Kind, name, origin, mapName, what string) *ObjectError {
	return &ObjectError{
		Kind: kind, Name: name, Origin: origin, Map: mapName, Flag: bpf.Flag(mapName),
		Err: fmt.Errorf("%w for %s", ErrFull, what),
	}
}

func invalid(kind Kind, name, origin, format string, args ...any) *ObjectError {
	err := fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
	return &ObjectError{Kind: kind, Name: name, Origin: origin, Err: err}
}
