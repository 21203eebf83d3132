// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/netsim"
	"github.com/evenkeel/evenkeel/netsim/fault/supervisor"
)

// Place is a moment of an agent's start: before or after one of its watched calls. Either Number or Call is set.
type Place struct {
	// Number is the call's, from 1.
	Number int `json:"number,omitempty"`
	// Call is its text in the words of [Agent.Words], Occurrence which one that reads so, from 1.
	Call       string          `json:"call,omitempty"`
	Occurrence int             `json:"occurrence,omitempty"`
	When       supervisor.When `json:"when"`
}

func (p Place) String() string {
	if p.Call == "" {
		return fmt.Sprintf("%v call %d", p.When, p.Number)
	}
	return supervisor.Point{Call: p.Call, Occurrence: p.Occurrence, When: p.When}.String()
}

func (p Place) decide(a supervisor.Action) supervisor.Decide {
	if p.Call == "" {
		return supervisor.AtNumber(p.Number, p.When, a)
	}
	return supervisor.At(supervisor.Point{Call: p.Call, Occurrence: max(1, p.Occurrence), When: p.When}, a)
}

// KillAt ends the agent of a node, starts it again and kills it at a place of that start, and then at the next place in
// its recovery, and so on: two places are a double crash.
type KillAt struct {
	Agent  *Agent   `json:"agent"`
	Places []Place  `json:"places"`
	Calls  []string `json:"calls,omitempty"` // system calls that are watched; none means all

	killed uint64
}

func (k *KillAt) String() string { return fmt.Sprintf("kill-at %v %v", k.Agent, k.Places) }

// Prepare makes sure that the node exists.
func (k *KillAt) Prepare(context.Context) error {
	_, _, err := k.Agent.info()
	return err
}

// Inject returns when the agent has died at every place. It is an error if a start comes to its end without passing one.
func (k *KillAt) Inject(ctx context.Context) error {
	if err := k.Agent.end(ctx); err != nil {
		return err
	}
	for _, place := range k.Places {
		s, err := k.Agent.Supervise(ctx, k.Calls, place.decide(supervisor.Kill()))
		if err != nil {
			return err
		}
		settled := s.Settle(ctx) // the place may come after the agent is ready
		acted, calls, startErr := s.Acted(), len(s.Calls()), s.Err()
		if err := errors.Join(settled, s.Close()); err != nil {
			return err
		}
		if acted == nil {
			return fmt.Errorf("%v: the start has %d calls and never came there: %w", place, calls,
				errors.Join(startErr, ErrInert))
		}
		k.killed++
	}
	return nil
}

// Heal starts the agent.
func (k *KillAt) Heal(ctx context.Context) error { return k.Agent.start(ctx) }

// Active counts the kills.
func (k *KillAt) Active(context.Context) (uint64, error) { return k.killed, nil }

// StopAt ends the agent of a node, starts it again and stops it at a place of that start: the whole process, or only the
// thread that is there (Wedge), as in a deadlock.
type StopAt struct {
	Agent *Agent   `json:"agent"`
	Place Place    `json:"place"`
	Wedge bool     `json:"wedge,omitempty"`
	Calls []string `json:"calls,omitempty"`

	run *Run
}

func (s *StopAt) String() string {
	name := "stop-at"
	if s.Wedge {
		name = "wedge-at"
	}
	return fmt.Sprintf("%s %v %v", name, s.Agent, s.Place)
}

// Prepare makes sure that the node exists.
func (s *StopAt) Prepare(context.Context) error {
	_, _, err := s.Agent.info()
	return err
}

// Inject returns when the agent stands. The start goes on for the lab until Heal: the context must last as long.
func (s *StopAt) Inject(ctx context.Context) error {
	if err := s.Agent.end(ctx); err != nil {
		return err
	}
	action := supervisor.Stop()
	if s.Wedge {
		action = supervisor.Wedge()
	}
	run, err := s.Agent.Supervise(context.WithoutCancel(ctx), s.Calls, s.Place.decide(action))
	if err != nil {
		return err
	}
	s.run = run
	if err := run.Settle(ctx); err != nil { // the place may come after the agent is ready
		return err
	}
	if run.Acted() == nil {
		return fmt.Errorf("%v: the start has %d calls and never came there: %w", s.Place, len(run.Calls()),
			errors.Join(run.Err(), ErrInert))
	}
	if s.Wedge {
		return nil
	}
	process, err := netsim.ProcessOf(run.PID())
	if err != nil {
		return err
	}
	return await(ctx, "all threads stand still", func() (bool, error) {
		stopped, others, err := threads(process)
		return stopped > 0 && others == 0, err
	})
}

// Process is the agent that stands.
func (s *StopAt) Process() int { return s.run.PID() }

// Resume lets the agent go on and returns when its start has come to an end; Heal then ends it.
func (s *StopAt) Resume(ctx context.Context) error {
	return s.run.Resume(ctx)
}

// Heal ends the agent, which could not do without its supervisor, and starts another one.
func (s *StopAt) Heal(ctx context.Context) error {
	if s.run != nil {
		if err := s.run.Close(); err != nil {
			return err
		}
	}
	return s.Agent.start(ctx)
}

// Active counts the threads that stand.
func (s *StopAt) Active(context.Context) (uint64, error) {
	process, err := netsim.ProcessOf(s.run.PID())
	if errors.Is(err, os.ErrProcessDone) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	stopped, others, err := threads(process)
	if !s.Wedge && others > 0 {
		return 0, err
	}
	return uint64(stopped), err
}

// CrashLoop starts the agent of a node again and again and kills it at random instants, before it is ready or after.
type CrashLoop struct {
	Agent *Agent `json:"agent"`
	Count int    `json:"count"`
	// Within is the longest time from a start to its kill.
	Within time.Duration `json:"within"`
	Seed   uint64        `json:"seed"`

	killed uint64
}

func (c *CrashLoop) String() string {
	return fmt.Sprintf("crash-loop %v count=%d within=%v seed=%d", c.Agent, c.Count, c.Within, c.Seed)
}

// Prepare makes sure that the node exists.
func (c *CrashLoop) Prepare(context.Context) error {
	_, _, err := c.Agent.info()
	return err
}

// Inject returns when the last agent is dead.
func (c *CrashLoop) Inject(ctx context.Context) error {
	lab, err := c.Agent.open()
	if err != nil {
		return err
	}
	if err := c.Agent.end(ctx); err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(c.Seed, 0))
	for range c.Count {
		lives, cancel := context.WithTimeout(ctx, time.Duration(random.Int64N(int64(c.Within))))
		// Kills it if it is not ready by then.
		err := patient(lives, func() error { return lab.StartAgent(lives, c.Agent.Node) })
		if err == nil {
			<-lives.Done()
			err = c.Agent.end(ctx)
		} else if errors.Is(lives.Err(), context.DeadlineExceeded) && ctx.Err() == nil {
			err = nil
		}
		cancel()
		if err != nil {
			return fmt.Errorf("after %d of %d crashes: %w", c.killed, c.Count, err)
		}
		c.killed++
	}
	return nil
}

// Heal starts the agent.
func (c *CrashLoop) Heal(ctx context.Context) error { return c.Agent.start(ctx) }

// Active counts the agents that were killed.
func (c *CrashLoop) Active(context.Context) (uint64, error) { return c.killed, nil }

// Refuse ends the agent of a node and starts it again with calls refused: a verifier that rejects programs, a feature
// that the kernel does not have. Whether the agent becomes ready is its own affair: see Ready.
type Refuse struct {
	Agent *Agent `json:"agent"`
	// Call is the beginning of the texts of calls that are refused, in the words of [Agent.Words].
	Call  string     `json:"call"`
	Errno unix.Errno `json:"errno"`
	// Most is how many are refused, 0 for all.
	Most int `json:"most,omitempty"`

	run *Run
}

func (r *Refuse) String() string {
	return fmt.Sprintf("refuse %v %q with %s", r.Agent, r.Call, unix.ErrnoName(r.Errno))
}

// Prepare makes sure that the node exists.
func (r *Refuse) Prepare(context.Context) error {
	_, _, err := r.Agent.info()
	return err
}

// Inject returns when the agent is ready or has ended.
func (r *Refuse) Inject(ctx context.Context) error {
	if err := r.Agent.end(ctx); err != nil {
		return err
	}
	refused := 0
	run, err := r.Agent.Supervise(ctx, nil, func(c supervisor.Call, when supervisor.When) supervisor.Action {
		if when == supervisor.After || !strings.HasPrefix(c.String(), r.Call) || r.Most > 0 && refused >= r.Most {
			return supervisor.Go()
		}
		refused++
		return supervisor.Refuse(r.Errno)
	})
	r.run = run
	return err
}

// Ready returns nil if the agent became ready all the same, else what it said.
func (r *Refuse) Ready() error { return r.run.Err() }

// Heal ends the agent and starts another one.
func (r *Refuse) Heal(ctx context.Context) error {
	if r.run != nil {
		if err := r.run.Close(); err != nil {
			return err
		}
	}
	return r.Agent.start(ctx)
}

// Active counts the refused calls.
func (r *Refuse) Active(context.Context) (uint64, error) {
	var n uint64
	for _, c := range r.run.Calls() {
		if c.Refused {
			n++
		}
	}
	return n, nil
}
