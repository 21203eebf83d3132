// SPDX-License-Identifier: Apache-2.0

// Package enrolment composes upgrade and enrol: it opens the pinned data plane for a process that lives shortly, the
// commands enrol and withdraw or the CNI plugin, and hands enrolment its maps and a way to attach programs. The agent,
// which holds all that already, uses its parts.
package enrolment

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/cilium/ebpf"

	"github.com/evenkeel/evenkeel/engine/enrol"
	"github.com/evenkeel/evenkeel/upgrade"
)

// DefaultDir is where the data plane of a node is pinned.
const DefaultDir = "/sys/fs/bpf/evenkeel"

// Maps are the maps that enrolment writes, found among those that all generations share, and how much may be in them by
// the sizes of the generation that serves.
func Maps(frozen map[string]*ebpf.Map, sizes map[string]uint32) (enrol.Maps, error) {
	maps := enrol.Maps{Workloads: frozen["workloads"], Names: frozen["workload_names"], Limit: sizes["workload_names"]}
	if maps.Workloads == nil || maps.Names == nil {
		return enrol.Maps{}, errors.New("map workloads or workload_names is not pinned any more: restart the agent, " +
			"which restores what it can")
	}
	return maps, nil
}

// Open opens what enrolment writes and attaches with. While it is open no phase of an upgrade changes; it waits for one
// that is changing no longer than patience. The caller ends it with the function returned. Errors are those of
// upgrade.OpenWriter.
func Open(ctx context.Context, dir string, patience time.Duration) (enrol.Options, func() error, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("an upgrade is under way: try again"))
	defer cancel()
	w, err := upgrade.OpenWriter(ctx, dir)
	if err != nil {
		return enrol.Options{}, nil, err
	}
	o, err := options(w)
	if err != nil {
		w.Close()
		return enrol.Options{}, nil, err
	}
	return o, w.Close, nil
}

func options(w *upgrade.Writer) (enrol.Options, error) {
	sizes, err := w.Sizes()
	if err != nil {
		return enrol.Options{}, err
	}
	maps, err := Maps(w.Frozen, sizes)
	if err != nil {
		return enrol.Options{}, err
	}
	// To look for other programs is a third of the time that opening takes, and whoever withdraws has no use for it.
	balancer := sync.OnceValues(func() (string, error) {
		others, err := w.Others()
		return Balancer(others), err
	})
	return enrol.Options{Maps: maps, Links: Links(w.Pods), OtherBalancer: balancer}, nil
}
