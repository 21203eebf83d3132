// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
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
	// The program reads our memory by itself while it runs. Pinning keeps the array where it is: on a goroutine's stack
	// it would be left behind when the stack grows.
	var pinner runtime.Pinner
	pinner.Pin(unsafe.SliceData(changes))
	defer pinner.Unpin()
	request := MeshPublishRequest{
		Publications: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(changes)))),
		Count:        uint32(len(changes)),
		Epoch:        uint32(p.epoch),
	}
	var answer MeshPublishRequest
	if _, err := p.program.Run(&ebpf.RunOptions{Context: request, ContextOut: &answer}); err != nil {
		return fmt.Errorf("publish %d changes: %w", len(changes), err)
	}
	if answer.Done == request.Count {
		return nil
	}
	return p.explain(changes, answer)
}

func (p *Publisher) explain(changes []MeshPublication, answer MeshPublishRequest) error {
	why := fmt.Errorf("the kernel says %d", answer.Error)
	switch MeshPublishError(answer.Error) {
	case MeshPublishErrorPUBLISH_STALE:
		why = ErrStale
	case MeshPublishErrorPUBLISH_FAULT:
		why = unix.EFAULT
	case MeshPublishErrorPUBLISH_INDEX:
		why = unix.ENOENT
	}
	c := changes[min(int(answer.Done), len(changes)-1)]
	return fmt.Errorf("publish change %d of %d (%d at index %d): %w", answer.Done+1, len(changes), c.What, c.Index, why)
}
