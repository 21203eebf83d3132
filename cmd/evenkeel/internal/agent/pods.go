// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"time"

	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/plane"
	"github.com/evenkeel/evenkeel/engine/enrol"
)

const (
	// podsPeriod is how often enrolled pods are looked at.
	podsPeriod = 15 * time.Second
	// podsLock is how long writers may keep the agent from mending; it comes back.
	podsLock = 5 * time.Second
)

// lookAfterPods withdraws pods whose network namespace has gone without anybody saying so, and attaches again what
// others have lost: at once, then from time to time.
func (a *agent) lookAfterPods(ctx context.Context) error {
	maps, err := plane.EnrolMaps(a.store.Frozen())
	if err != nil {
		return err
	}
	o := enrol.Options{Maps: maps, Links: plane.Links(a.store.Pods)}
	if a.SourceCheck != nil {
		if err := a.align(ctx, o, *a.SourceCheck); err != nil && ctx.Err() == nil {
			a.Log.Warn("change the source check of enrolled pods", "err", err)
		}
	}
	tick := time.NewTicker(podsPeriod)
	defer tick.Stop()
	for {
		if err := a.mend(ctx, o); err != nil && ctx.Err() == nil {
			a.Log.Warn("look after enrolled pods", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// align enrols again those pods whose source check is not as the agent was told.
func (a *agent) align(ctx context.Context, o enrol.Options, check bool) error {
	unlock, err := a.store.Writers(ctx, false)
	if err != nil {
		return err
	}
	defer unlock()
	all, err := enrol.List(o.Maps)
	if err != nil {
		return err
	}
	var failed []error
	for _, w := range all {
		if w.SourceCheck == check {
			continue
		}
		o.SourceCheck, o.Canary = check, w.Canary
		_, err := enrol.Enrol(ctx, o, enrol.Pod{Name: w.Name, Netns: w.Netns})
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}

// mend looks without a lock, and looks again under one if there is anything to do: what looks like damage may be an
// enrolment that is under way.
func (a *agent) mend(ctx context.Context, o enrol.Options) error {
	health, err := enrol.Check(o)
	if err != nil || health.Well() {
		return err
	}
	lock, cancel := context.WithTimeoutCause(ctx, podsLock,
		errors.New("others are enrolling pods, it is tried again later"))
	defer cancel()
	unlock, err := a.store.Writers(lock, true)
	if err != nil {
		return err
	}
	defer unlock()
	mended, err := enrol.Mend(ctx, o)
	for _, m := range mended {
		log := a.Log.With("workload", m.Workload.Name, "netns", m.Workload.Cookie)
		if m.Err != nil {
			log.Warn("workload is not as it should be", "err", m.Err)
		} else {
			log.Info("workload was mended", "done", m.Done)
		}
	}
	return err
}
