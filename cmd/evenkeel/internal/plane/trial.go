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
// published is where it is read, an owner that was replaced publishes nothing, and a packet leaves a workload only with the
// workload's address. Hooks of sockets cannot be run on demand; the verifier and a canary judge those.
func Trial(_ context.Context, loaded *ebpf.Collection) error {
	return errors.Join(tryPublish(loaded), trySource(loaded))
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
	return nil
}

// trySource runs the check of sources on packets of the loopback, which test runs are of.
func trySource(loaded *ebpf.Collection) error {
	program, workloads := loaded.Programs["mesh_tcx"], loaded.Maps[bpf.MeshMapWorkloads]
	if program == nil || workloads == nil {
		return nil
	}
	const loopback, next, drop = 1, 0xffffffff, 2
	packet := func(last byte) []byte {
		header := []byte{0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0, 10, 9, 8, last, 10, 9, 8, 7}
		return append([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0}, header...) // Ethernet
	}
	run := func(what string, data []byte, want uint32) error {
		got, err := program.Run(&ebpf.RunOptions{Data: data})
		if err != nil {
			return fmt.Errorf("program mesh_tcx: %s: %w", what, err)
		}
		if got != want {
			return fmt.Errorf("program mesh_tcx: %s: it says %d, not %d", what, int32(got), int32(want))
		}
		return nil
	}
	if err := run("a packet of no workload", packet(1), next); err != nil {
		return err
	}
	workload := bpf.MeshWorkload{
		Ip4:       bpf.MeshAddress{Word: [4]uint32{2: 0xffff0000, 3: 0x0108090a}}, // ::ffff:10.9.8.1, network order
		Interface: loopback, Flags: uint32(bpf.MeshWorkloadFlagWORKLOAD_SOURCE_CHECK),
	}
	key := bpf.MeshWorkloadKey{Id: loopback, By: uint32(bpf.MeshWorkloadByWORKLOAD_BY_INTERFACE)}
	if err := workloads.Put(key, workload); err != nil {
		return fmt.Errorf("map workloads: %w", err)
	}
	return errors.Join(
		run("a packet with its workload's address", packet(1), next),
		run("a packet with another address", packet(2), drop),
	)
}
