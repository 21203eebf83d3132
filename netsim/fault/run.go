// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"time"

	"github.com/evenkeel/evenkeel/netsim/fault/supervisor"
)

// Run is a process under supervision: an agent, or a command.
type Run struct {
	*supervisor.Supervisor
	started chan struct{} // closed when the agent is ready, or it or the command has ended
	err     error         // once that is closed
}

// Supervise runs a command under a supervisor; what it does is as with [exec.Cmd.Start]. It returns when the command has
// ended, or was stopped or wedged. self is as in [Options]. Close the run.
func Supervise(cmd *exec.Cmd, self, calls []string, decide supervisor.Decide) (*Run, error) {
	s, err := newSupervisor(self, calls, decide)
	if err != nil {
		return nil, fmt.Errorf("supervise %q: %w", cmd.Args, err)
	}
	line := s.Wrap(append([]string{cmd.Path}, cmd.Args[1:]...)...)
	if cmd.Path, err = exec.LookPath(line[0]); err == nil {
		cmd.Args = line
		err = cmd.Start()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("supervise %q: %w", line, err), s.Close())
	}
	run := &Run{Supervisor: s, started: make(chan struct{})}
	go func() {
		defer close(run.started)
		run.err = cmd.Wait()
	}()
	select {
	case <-run.started:
	case <-s.Halted():
	}
	return run, nil
}

func newSupervisor(self, calls []string, decide supervisor.Decide) (*supervisor.Supervisor, error) {
	if len(self) == 0 {
		return nil, errors.New("the command line that leads to fault.Main is empty")
	}
	return supervisor.New(supervisor.Options{
		Self: append(slices.Clone(self), superviseCommand), Calls: calls, Decide: decide,
	})
}

// Started is closed when the agent is ready, or it or the command has ended.
func (r *Run) Started() <-chan struct{} { return r.started }

// Err returns nil if the agent became ready, or the command has ended with status 0, else how it ended. It is for when
// Started is closed, and nil before.
func (r *Run) Err() error {
	select {
	case <-r.started:
		return r.err
	default:
		return nil
	}
}

// quiet is how long an agent that is ready must make no watched call to be done with its start: what it does in the
// background comes before or after it says that it is ready.
const quiet = 250 * time.Millisecond

// Settle returns when the process has made no watched call for a while, has ended, or was stopped or wedged; an agent
// that never rests is given 20 times as long.
func (r *Run) Settle(ctx context.Context) error {
	tick := time.NewTicker(quiet / 10)
	defer tick.Stop()
	begin := time.Now()
	calls, since := len(r.Calls()), begin
	for now := range tick.C {
		select {
		case <-r.Done():
			return nil
		case <-r.Halted():
			return nil
		case <-ctx.Done():
			return ctx.Err()
		default:
		}
		if n := len(r.Calls()); n != calls {
			calls, since = n, now
		}
		if now.Sub(since) >= quiet || now.Sub(begin) >= 20*quiet {
			return nil
		}
	}
	return nil
}

// Resume lets a process go on that was stopped or wedged, and returns when it is ready or has ended.
func (r *Run) Resume(ctx context.Context) error {
	r.Supervisor.Resume()
	select {
	case <-r.started:
		return r.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close ends the process and returns when its lab, or whoever waits for it, knows.
func (r *Run) Close() error {
	err := r.Supervisor.Close()
	<-r.started
	return err
}
