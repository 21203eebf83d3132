// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// The epochs here are not 0: see what publish says of the upper half of a count.
func TestPublish(t *testing.T) {
	needRoot(t)
	coll := mustLoad(t, 1, nil)
	putWord(t, coll.Maps["super"], 1, 1)
	if err := coll.Maps["endpoints"].Put(uint32(5), MeshEndpoint{Incarnation: 9}); err != nil {
		t.Fatal(err)
	}
	changes := []MeshPublication{
		{What: uint32(MeshPublishWhatPUBLISH_SLOT), Index: 3, Value: 5},
		{What: uint32(MeshPublishWhatPUBLISH_STATE), Index: 5, Value: 9},
		{What: uint32(MeshPublishWhatPUBLISH_RANGE), Index: 2*uint32(MeshServiceLevelLEVELS) + 1, Value: Range(3, 1)},
	}
	if err := NewPublisher(coll.Programs["publish"], 1).Publish(changes); err != nil {
		t.Fatal(err)
	}
	var slot uint32
	var endpoint MeshEndpoint
	var service MeshService
	for name, get := range map[string]error{
		"slots":     coll.Maps["slots"].Lookup(uint32(3), &slot),
		"endpoints": coll.Maps["endpoints"].Lookup(uint32(5), &endpoint),
		"services":  coll.Maps["services"].Lookup(uint32(2), &service),
	} {
		if get != nil {
			t.Fatalf("look up in %s: %v", name, get)
		}
	}
	if slot != 5 || endpoint.State != 9 || endpoint.Incarnation != 9 || service.Ranges != [4]uint64{0, Range(3, 1)} {
		t.Fatalf("slot %d, endpoint %+v, service %+v", slot, endpoint, service)
	}
}

func TestPublishRefuses(t *testing.T) {
	needRoot(t)
	coll := mustLoad(t, 1, nil)
	putWord(t, coll.Maps["super"], 1, 1)
	program := coll.Programs["publish"]
	good := MeshPublication{What: uint32(MeshPublishWhatPUBLISH_SLOT), Index: 3, Value: 5}
	if err := NewPublisher(program, 2).Publish([]MeshPublication{good}); !errors.Is(err, ErrStale) {
		t.Errorf("an epoch that is not the word's: %v, want ErrStale", err)
	}
	var slot uint32
	if err := coll.Maps["slots"].Lookup(uint32(3), &slot); err != nil || slot != 0 {
		t.Errorf("slot 3 is %d (%v): a stale publisher changed it", slot, err)
	}
	for _, bad := range []MeshPublication{
		{What: uint32(MeshPublishWhatPUBLISH_SLOT), Index: 1 << 30}, {What: 99}, {},
	} {
		if err := NewPublisher(program, 1).Publish([]MeshPublication{good, bad}); !errors.Is(err, unix.ENOENT) {
			t.Errorf("%+v: %v, want ENOENT", bad, err)
		}
	}
	if err := NewPublisher(program, 1).Publish(nil); err != nil {
		t.Errorf("no changes: %v", err)
	}
}
