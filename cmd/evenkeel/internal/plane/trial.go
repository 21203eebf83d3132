// SPDX-License-Identifier: Apache-2.0

package plane

import (
	"context"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/bpf"
)

// Trial has a release, loaded with maps of its own, answer what every release of this data plane answers alike: what is
// published is where it is read, an owner that was replaced publishes nothing, a packet leaves a workload only with the
// workload's address, and what reaches a workload, or an accelerated socket sends, runs what the word says and is counted.
// Hooks of other sockets cannot be run on demand; the verifier and a canary judge those.
func Trial(_ context.Context, loaded *ebpf.Collection) error {
	return errors.Join(tryPublish(loaded), trySource(loaded), tryInbound(loaded))
}

// expectCount compares a counter with what was made happen.
func expectCount(loaded *ebpf.Collection, program string, what bpf.MeshCount, want uint64) error {
	counters := loaded.Maps[bpf.MeshMapCounters]
	if counters == nil {
		return nil // of a release that counts otherwise
	}
	if got, err := sum(counters, uint32(what)); err != nil || got != want {
		return fmt.Errorf("program %s: %s is %d after %d: %w", program, countNames[what], got, want, err)
	}
	return nil
}

func tryPublish(loaded *ebpf.Collection) error {
	program, slots := loaded.Programs[bpf.MeshProgPublish], loaded.Maps[bpf.MeshMapSlots]
	if program == nil || slots == nil {
		return nil // of a release that has another way
	}
	change := bpf.MeshPublication{What: uint32(bpf.MeshPublishWhatPUBLISH_SLOT), Index: 3, Value: 7}
	if err := bpf.NewPublisher(program, 0).Publish([]bpf.MeshPublication{change}); err != nil {
		return err
	}
	var slot uint32
	if err := slots.Lookup(uint32(3), &slot); err != nil || slot != 7 {
		return fmt.Errorf("program publish: slot 3 is %d, not 7: %w", slot, err)
	}
	change.Value = 8
	if err := bpf.NewPublisher(program, 1).Publish([]bpf.MeshPublication{change}); !errors.Is(err, bpf.ErrStale) {
		return fmt.Errorf("program publish: an owner of another epoch was not refused: %w", err)
	}
	change.Index = slots.MaxEntries()
	if err := bpf.NewPublisher(program, 0).Publish([]bpf.MeshPublication{change}); !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("program publish: slot %d, which is none, was not refused: %w", change.Index, err)
	}
	return tryPublishRecords(program, loaded.Maps[bpf.MeshMapServices], loaded.Maps[bpf.MeshMapEndpoints])
}

// tryPublishRecords publishes fields of records, and looks that nothing else of them changed.
func tryPublishRecords(program *ebpf.Program, services, endpoints *ebpf.Map) error {
	if services == nil || endpoints == nil {
		return nil
	}
	const index, state = 2, 5
	const level = bpf.MeshServiceLevelLEVEL_READY
	service, endpoint := bpf.MeshService{Incarnation: 3, Affinity: 4}, bpf.MeshEndpoint{Port: 6, Incarnation: 7}
	if err := errors.Join(services.Put(uint32(index), service), endpoints.Put(uint32(index), endpoint)); err != nil {
		return fmt.Errorf("records: %w", err)
	}
	service.Ranges[level], endpoint.State = bpf.Range(9, 3), state
	err := bpf.NewPublisher(program, 0).Publish([]bpf.MeshPublication{
		{What: uint32(bpf.MeshPublishWhatPUBLISH_STATE), Index: index, Value: state},
		{What: uint32(bpf.MeshPublishWhatPUBLISH_RANGE), Index: index*uint32(len(service.Ranges)) + uint32(level),
			Value: service.Ranges[level]},
	})
	if err != nil {
		return err
	}
	var gotService bpf.MeshService
	var gotEndpoint bpf.MeshEndpoint
	if err := errors.Join(services.Lookup(uint32(index), &gotService), endpoints.Lookup(uint32(index), &gotEndpoint)); err != nil {
		return fmt.Errorf("records: %w", err)
	}
	if gotService != service || gotEndpoint != endpoint {
		return fmt.Errorf("program publish: the records are %+v and %+v, not %+v and %+v", gotService, gotEndpoint, service, endpoint)
	}
	return nil
}
