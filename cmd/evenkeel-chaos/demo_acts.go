// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
)

func (d *demo) perform(ctx context.Context, o demoOptions) error {
	d.event("two clusters of two nodes, the same pods and services; once with Evenkeel, once with a proxy per node")
	if err := d.both(ctx, func(s *side, ctx context.Context) error { return s.up(ctx, o.keep) }); err != nil {
		return err
	}
	if err := d.both(ctx, (*side).connect); err != nil {
		return err
	}
	watching, stop := context.WithCancel(ctx)
	defer stop()
	watcher, watching := errgroup.WithContext(watching)
	watcher.Go(func() error { return d.watch(watching) })
	d.event("%d connections on either side, 100 requests a second each", len(d.sides[0].rows))
	err := d.acts(ctx, o.pace)
	stop()
	if ended := watcher.Wait(); err == nil {
		err = ended
	}
	if err != nil {
		return err
	}
	if err := d.both(ctx, (*side).judge); err != nil {
		return err
	}
	for _, s := range d.sides { // what clients said last
		if err := s.follow(); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) acts(ctx context.Context, pace time.Duration) error {
	if err := pause(ctx, pace); err != nil {
		return err
	}
	kill := func(text string) error {
		d.event("%s", text)
		if err := d.both(ctx, func(s *side, ctx context.Context) error { return s.kill(ctx, pace) }); err != nil {
			return err
		}
		d.event("they run again; whose connections broke, connects anew")
		return d.anew(ctx, pace)
	}
	if err := kill("kill -9: agents and proxies of both nodes are dead"); err != nil {
		return err
	}
	d.event("an orderly restart of both; proxies drain for %s, agents have nothing to drain", drain)
	if err := d.both(ctx, (*side).restart); err != nil {
		return err
	}
	d.event("new processes everywhere; whose connections broke, connects anew")
	if err := d.anew(ctx, pace); err != nil {
		return err
	}
	return kill("kill -9, once more")
}

// patience is how long connections may take to be there again: what comes next is then shown without them.
const patience = 10 * time.Second

// anew opens what broke in a fault that is over, and goes on once each connection has been answered since, old or new:
// that one broke its client says a moment later, and the next fault would find nothing to break. It takes pace at least.
func (d *demo) anew(ctx context.Context, pace time.Duration) error {
	for _, s := range d.sides {
		s.heal()
	}
	for begin := time.Now(); ; {
		if err := d.both(ctx, (*side).connect); err != nil {
			return err
		}
		if err := pause(ctx, step); err != nil {
			return err
		}
		if past := time.Since(begin); past >= pace && (d.well() || past >= patience) {
			return nil
		}
	}
}

func (d *demo) well() bool {
	return !slices.ContainsFunc(d.sides, func(s *side) bool { return !s.well() })
}

// both does something on both sides at once.
func (d *demo) both(ctx context.Context, do func(*side, context.Context) error) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, s := range d.sides {
		group.Go(func() error {
			if err := do(s, ctx); err != nil {
				return fmt.Errorf("%s: %w", s.plane, err)
			}
			return nil
		})
	}
	return group.Wait()
}
