// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/report"
	"github.com/evenkeel/evenkeel/engine/source/file"
)

// describe is what the agent says of itself.
func (a *agent) describe() (report.Agent, []report.Source) {
	said := report.Agent{
		Since: a.since, Release: a.Release, Node: a.Node, NotReady: a.notReady(), Epoch: a.store.Epoch(),
	}
	said.Ready = len(said.NotReady) == 0
	sources := make([]report.Source, len(a.sources))
	for i, s := range a.sources {
		sources[i] = sourceOf(s.Status())
	}
	return said, sources
}

func sourceOf(s file.Status) report.Source {
	shown := report.Source{
		Name: sourceName(s.Path), Path: s.Path, Synced: s.Synced, Read: s.Read, Objects: s.Objects, Skipped: s.Skipped,
		Since: s.Since,
	}
	for _, w := range s.Warnings {
		shown.Warnings = append(shown.Warnings, w.String())
	}
	if s.Err != nil {
		shown.Error = s.Err.Error()
	}
	return shown
}

// notReady says what keeps the agent from being ready; nothing if it is.
func (a *agent) notReady() []string {
	why := a.attached()
	select {
	case <-a.engine.Ready():
		return why
	default:
	}
	for _, s := range a.sources {
		switch st := s.Status(); {
		case st.Synced:
		case st.Err != nil:
			why = append(why, fmt.Sprintf("source %s was never applied: %v", sourceName(st.Path), st.Err))
		default:
			why = append(why, fmt.Sprintf("source %s is being read", sourceName(st.Path)))
		}
	}
	return append(why, "what the sources say is not in the kernel yet")
}

// attached says what of the data plane is not where it should be.
func (a *agent) attached() []string {
	state, err := a.store.Inspect()
	if err != nil {
		return []string{err.Error()}
	}
	var why []string
	for _, d := range state.Damages {
		why = append(why, d.String())
	}
	for _, h := range state.Hooks {
		if !h.OK && len(state.Damages) == 0 {
			why = append(why, fmt.Sprintf("hook %s is not attached", h.Name))
		}
	}
	return why
}

// leasePeriod is how often the agent looks whether it has been replaced.
const leasePeriod = time.Second

// lookAfterLease ends the agent when another has taken over although this one lives: its word carries another epoch.
// The kernel has refused this one's changes since; it must not go on as if they were made.
func (a *agent) lookAfterLease(ctx context.Context) error {
	tick := time.NewTicker(leasePeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if now := a.store.Word().Epoch(); now != a.store.Epoch() {
				return fmt.Errorf("another process has taken %s over (epoch %d, this is %d): this one ends", a.Dir, now,
					a.store.Epoch())
			}
		}
	}
}
