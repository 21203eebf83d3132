// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"github.com/cilium/ebpf"
)

// ErrStale says that another agent owns the data plane now: nothing that this one publishes takes effect.
var ErrStale = errors.New("another agent has taken the data plane over")

// Publisher changes what the data plane can read, one aligned store after the other.
type Publisher struct {
	program *ebpf.Program
	epoch   uint16
}

// NewPublisher returns a publisher that runs the program publish of a generation; epoch is that of the word since
// its owner took the lease. The program stays the caller's.
func NewPublisher(program *ebpf.Program, epoch uint16) *Publisher {
	return &Publisher{program: program, epoch: epoch}
}

// Publish makes the changes in order, in one system call. It returns ErrStale, perhaps after a part of them, once
// another owner has raised the epoch.
func (p *Publisher) Publish(changes []MeshPublication) error {
	if len(changes) == 0 {
		return nil
	}
	// The program reads the caller's memory itself, so it must not move: heap objects do not, and this one is kept.
	request := MeshPublishRequest{
		Publications: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(changes)))),
		Count:        uint32(len(changes)),
		Epoch:        uint32(p.epoch),
	}
	var answer MeshPublishRequest
	_, err := p.program.Run(&ebpf.RunOptions{Context: request, ContextOut: &answer})
	runtime.KeepAlive(changes)
	if err != nil {
		return fmt.Errorf("publish %d changes: %w", len(changes), err)
	}
	if answer.Done == request.Count {
		return nil
	}
	c := changes[answer.Done]
	return fmt.Errorf("publish change %d of %d (%d at index %d): %w",
		answer.Done+1, request.Count, c.What, c.Index, ErrStale)
}
