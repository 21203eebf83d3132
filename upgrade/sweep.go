// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// eachStamp runs one of the iterators of stamps.c over the sockets, and returns what it wrote.
func (s *Store) eachStamp(ctx context.Context, program string) ([]byte, error) {
	sockets := s.view.maps[s.object.Stamps]
	if sockets == nil {
		return nil, errors.New("the data plane does not say where sockets keep their stamps")
	}
	spec, err := loadStamps()
	if err != nil {
		return nil, err
	}
	var loaded stampsPrograms
	o := &ebpf.CollectionOptions{MapReplacements: map[string]*ebpf.Map{superMapSuper: s.view.super.m}}
	if err := spec.LoadAndAssign(&loaded, o); err != nil {
		return nil, fmt.Errorf("load iterators over sockets: %w", err)
	}
	defer loaded.Close()
	run := loaded.StampsList
	if program == "sweep" {
		run = loaded.StampsSweep
	}
	it, err := link.AttachIter(link.IterOptions{Program: run, Map: sockets})
	if err != nil {
		return nil, fmt.Errorf("iterate over sockets: %w", err)
	}
	defer it.Close()
	file, err := it.Open()
	if err != nil {
		return nil, fmt.Errorf("iterate over sockets: %w", err)
	}
	defer file.Close()
	var all []byte
	buffer := make([]byte, 1<<16)
	for {
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		n, err := file.Read(buffer)
		all = append(all, buffer[:n]...)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, fmt.Errorf("iterate over sockets: %w", err)
		}
	}
}

// running counts sockets by the generation that they run.
func (s *Store) running(ctx context.Context) (map[uint16]int, error) {
	stamps, err := s.eachStamp(ctx, "list")
	if err != nil {
		return nil, err
	}
	word := s.Word()
	counts := make(map[uint16]int)
	for i := 0; i+1 < len(stamps); i += 2 {
		counts[word.Run(binary.NativeEndian.Uint16(stamps[i:]))]++
	}
	return counts, nil
}

// sweepFor makes numbers that come round safe to be stamped: what runs as floor is stamped so, until a pass finds none.
func (s *Store) sweepFor(ctx context.Context, numbers []uint16) error {
	last, due := s.Last(), false
	for _, n := range numbers {
		due = due || Sweep(last, n)
		last = n
	}
	if !due {
		return nil
	}
	const passes = 16
	for range passes {
		var swept []byte
		err := s.journal.do(StepSweep, s.object.Stamps, func() (err error) {
			swept, err = s.eachStamp(ctx, "sweep")
			return err
		})
		if err != nil {
			return fmt.Errorf("sweep sockets, for the numbers of generations come round: %w", err)
		}
		if len(swept) == 0 {
			return nil
		}
	}
	return fmt.Errorf("sweep sockets: after %d passes there are still some to do", passes)
}

// Expire gives up the way back if what serves has served for a while, and retires generations that no socket runs any
// more. It returns those.
func (s *Store) Expire(ctx context.Context, window time.Duration) (retired []uint16, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy || s.view.super.phase().state() != phaseIdle || len(s.view.generations) < 2 {
		return nil, nil
	}
	events := s.view.super.events()
	if len(events) > 0 && time.Since(events[len(events)-1].When) < window {
		return nil, nil
	}
	if err := s.setPhase(s.view.super.phase().withPrevious(0)); err != nil {
		return nil, err
	}
	for _, n := range sortedKeys(s.view.generations) {
		word := s.Word()
		if n == word.Serve() {
			continue
		}
		if slices.Contains(word.Live(), n) {
			if n != word.Floor() { // the next in order is not done yet
				continue
			}
			counts, err := s.running(ctx)
			if err != nil || counts[n] > 0 {
				return retired, err
			}
			if err := s.outlive(n); err != nil {
				return retired, err
			}
		}
		if err := s.retire(ctx, n); err != nil {
			return retired, err
		}
		retired = append(retired, n)
	}
	return retired, nil
}

// RetireOthers retires every generation but the one that serves, which carries the connections of all over. There is
// nothing to go back to afterwards.
func (s *Store) RetireOthers(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy {
		return errors.New("retire: an upgrade is under way")
	}
	return s.retireAll(ctx)
}
