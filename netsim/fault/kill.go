// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/netsim"
)

// Kill ends a process by a signal. If it is an agent, healing starts another one.
type Kill struct {
	Agent   *Agent         `json:"agent,omitempty"`
	Process netsim.Process `json:"process"` // found by Prepare if Agent is set
	Signal  unix.Signal    `json:"signal"`
	// After is how long Inject waits first: a random instant, if it was drawn at random.
	After time.Duration `json:"after,omitempty"`
}

func (k *Kill) String() string {
	return fmt.Sprintf("%s %s after %v", unix.SignalName(k.Signal), victim(k.Agent, k.Process), k.After)
}

func victim(a *Agent, p netsim.Process) string {
	if a != nil {
		return a.String()
	}
	return fmt.Sprintf("process %d", p.PID)
}

// find sets the process to the agent's, if there is an agent, and makes sure that it runs.
func find(a *Agent, p *netsim.Process) (err error) {
	if a != nil {
		*p, err = a.process()
		return err
	}
	if !p.Alive() {
		return fmt.Errorf("process %d: %w", p.PID, os.ErrProcessDone)
	}
	return nil
}

// Prepare finds the process.
func (k *Kill) Prepare(context.Context) error { return find(k.Agent, &k.Process) }

// Inject sends the signal and waits until the process has ended.
func (k *Kill) Inject(ctx context.Context) error {
	if err := pause(ctx, k.After); err != nil {
		return err
	}
	if err := k.Process.Signal(k.Signal); err != nil {
		return err // also if it has ended by itself
	}
	if err := k.Process.Wait(ctx); err != nil {
		return fmt.Errorf("wait for the end of %s: %w", victim(k.Agent, k.Process), err)
	}
	return nil
}

// pause returns after d, or with the context's error.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Heal starts the agent again.
func (k *Kill) Heal(ctx context.Context) error {
	if k.Agent == nil {
		return nil
	}
	return k.Agent.start(ctx)
}

// Active is 1 if the process that was there has ended.
func (k *Kill) Active(context.Context) (uint64, error) {
	if k.Process.Alive() {
		return 0, nil
	}
	return 1, nil
}

// Stop stops a process with all its threads: SIGSTOP until SIGCONT.
type Stop struct {
	Agent   *Agent         `json:"agent,omitempty"`
	Process netsim.Process `json:"process"`
}

func (s *Stop) String() string { return "stop " + victim(s.Agent, s.Process) }

// Prepare finds the process.
func (s *Stop) Prepare(context.Context) error { return find(s.Agent, &s.Process) }

// Inject returns when every thread stands still.
func (s *Stop) Inject(ctx context.Context) error {
	if err := s.Process.Signal(unix.SIGSTOP); err != nil {
		return err
	}
	return await(ctx, "all threads stand still", func() (bool, error) {
		stopped, others, err := threads(s.Process)
		return stopped > 0 && others == 0, err
	})
}

// Heal lets the process go on.
func (s *Stop) Heal(context.Context) error {
	if err := s.Process.Signal(unix.SIGCONT); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// Active counts the threads that stand still, 0 if one does not.
func (s *Stop) Active(context.Context) (uint64, error) {
	stopped, others, err := threads(s.Process)
	if others > 0 {
		return 0, err
	}
	return uint64(stopped), err
}
