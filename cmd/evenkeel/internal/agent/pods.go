// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/evenkeel/evenkeel/cmd/internal/enrolment"
	"github.com/evenkeel/evenkeel/engine/enrol"
	"github.com/evenkeel/evenkeel/engine/expedite"
)

const (
	// podsPeriod is how often enrolled pods are looked at.
	podsPeriod = 15 * time.Second
	// podsLock is how long a change of layout may keep the agent from mending; it comes back.
	podsLock = 5 * time.Second
)

// lookAfterPods withdraws pods whose network namespace has gone without anybody saying so, and attaches and pins again
// what others have lost, of pods and of the node: at once, then from time to time.
func (a *agent) lookAfterPods(ctx context.Context) error {
	maps, err := enrolment.Maps(a.store.Frozen(), a.store.Serving().Sizes())
	if err != nil {
		return err
	}
	o := enrol.Options{Maps: maps, Links: enrolment.Links(a.store.Pods)}
	if a.SourceCheck != nil {
		if err := a.align(ctx, o, *a.SourceCheck); err != nil && ctx.Err() == nil {
			a.Log.Warn("change the source check of enrolled pods", "err", err)
		}
	}
	said := &said{log: a.Log}
	tick := time.NewTicker(podsPeriod)
	defer tick.Stop()
	for {
		hooks, node := a.store.Reattach(ctx)
		lost, unpinned := a.store.Repin()
		mended, pods := a.mend(ctx, o)
		if ctx.Err() == nil {
			said.pins(lost, unpinned)
			said.node(hooks, node)
			said.pods(mended, pods)
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
	all = slices.DeleteFunc(all, func(w enrol.Workload) bool { return w.SourceCheck == check })
	if len(all) == 0 {
		return nil
	}
	return expedite.Kernel().During(func() error {
		var failed []error
		for _, w := range all {
			o.SourceCheck, o.Canary = check, w.Canary
			_, err := enrol.Enrol(ctx, o, enrol.Pod{Name: w.Name, Netns: w.Netns})
			failed = append(failed, err)
		}
		return errors.Join(failed...)
	})
}

// mend looks without any lock, and keeps changes of layout out only if there is something to do.
func (a *agent) mend(ctx context.Context, o enrol.Options) ([]enrol.Mended, error) {
	health, err := enrol.Check(o)
	if err != nil || health.Well() {
		return nil, err
	}
	lock, cancel := context.WithTimeoutCause(ctx, podsLock, errors.New("an upgrade is under way, it is tried again later"))
	defer cancel()
	unlock, err := a.store.Writers(lock, false)
	if err != nil {
		return nil, err
	}
	defer unlock()
	var mended []enrol.Mended
	err = expedite.Kernel().During(func() (err error) {
		mended, err = enrol.Mend(ctx, o)
		return err
	})
	return mended, err
}

// said logs what was done each time, and what cannot be done when it is first seen and when it changes.
type said struct {
	log       *slog.Logger
	hooks     string            // the problem of the node
	maps      string            // of its pins
	all       string            // of all pods
	workloads map[uint64]string // of single ones, by cookie
}

// changed notes a problem, and reports whether it is a new one.
func changed(problem *string, err error) bool {
	now := ""
	if err != nil {
		now = err.Error()
	}
	was := *problem
	*problem = now
	return now != "" && now != was
}

func (s *said) node(attached []string, err error) {
	if len(attached) > 0 {
		s.log.Warn("attached again what somebody took off the node", "hooks", attached)
	}
	if changed(&s.hooks, err) {
		s.log.Warn("look after the hooks of the node", "err", err)
	}
}

func (s *said) pins(again []string, err error) {
	if len(again) > 0 {
		s.log.Warn("pinned again what somebody removed", "paths", again)
	}
	if changed(&s.maps, err) {
		s.log.Warn("look after the pins of the node", "err", err)
	}
}

func (s *said) pods(mended []enrol.Mended, err error) {
	workloads := make(map[uint64]string)
	for _, m := range mended {
		log := s.log.With("workload", m.Workload.Name, "netns", m.Workload.Cookie)
		if m.Err == nil {
			log.Info("workload was mended", "done", m.Done)
			continue
		}
		workloads[m.Workload.Cookie] = m.Err.Error()
		if s.workloads[m.Workload.Cookie] != m.Err.Error() {
			log.Warn("workload is not as it should be", "err", m.Err)
		}
	}
	if err == nil {
		s.workloads = workloads
	}
	if changed(&s.all, err) {
		s.log.Warn("look after enrolled pods", "err", err)
	}
}
