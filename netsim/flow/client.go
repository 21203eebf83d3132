// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/evenkeel/evenkeel/netsim/flow/record"
)

// Ready is the first line that a client, a server or a relay says: all flows are established and the schedules begin,
// or it listens.
const Ready = "ready"

// What a client reads after its plan, and what it says.
const (
	commandFlush = "flush"   // write what is known so far to the recording
	sayFlushed   = "flushed" // it is done
)

const (
	openTimeout = 10 * time.Second
	// opening is how many connections are made at a time.
	opening = 16
	// windowLength is how often each flow is counted, where there are no more than windowFlows; with twice as many it is
	// twice that, and so on.
	windowLength = 250 * time.Millisecond
	windowFlows  = 250
	// lead and, for each flow, leadEach are the time between the last connection and the first frame.
	lead     = 20 * time.Millisecond
	leadEach = 50 * time.Microsecond
	// step is what lies between the schedules of a client: see stagger.
	step = 2 * time.Millisecond
)

// client runs the flows of a plan.
type client struct {
	flows  []*watched
	probes []*prober
	rec    *record.Writer
	drain  time.Duration
}

// RunClient runs the flows of a plan, the first line of in, and records them on out. Once all are established it says
// "ready", then does what in commands: "flush" hands on what was recorded and says "flushed". What it says are the lines
// that are no objects. At the end of in, or of the context, it stops the schedules, waits for what is under way, and
// returns. What happens to a flow is no error: it is in the recording. scheduling is what Prefer has returned.
//
// out must not block the process, as a file can: a pipe that Go polls does not.
func RunClient(ctx context.Context, in io.Reader, out io.Writer, scheduling string) error {
	lines := bufio.NewReader(in)
	text, err := lines.ReadBytes('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read plan: %w", err)
	}
	plan, err := ParsePlan(text)
	if err != nil {
		return err
	}
	c := newClient(plan, out, scheduling)
	err = c.open(ctx)
	if err == nil {
		err = c.watch(ctx, lines)
	}
	return errors.Join(err, c.rec.Finish())
}

func newClient(plan *Plan, out io.Writer, scheduling string) *client {
	c := &client{rec: record.NewWriter(out, "client", scheduling), drain: time.Duration(plan.Drain)}
	// Numbers that no other client on the machine has, and that JSON readers do not round.
	id := rand.Uint64N(1<<33) << 20
	for _, spec := range plan.Flows {
		id++
		if spec.kind.shape == attempt {
			c.probes = append(c.probes, &prober{Spec: spec, id: id, rec: c.rec, outcomes: map[string]uint64{}})
		} else {
			c.flows = append(c.flows, &watched{Spec: spec, id: id, rec: c.rec, dead: make(chan struct{})})
		}
	}
	return c
}

// open establishes all flows. If one cannot be, none is left.
func (c *client) open(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(opening)
	for _, w := range c.flows {
		group.Go(func() error {
			if err := w.open(ctx); err != nil {
				return fmt.Errorf("open flow %s: %w", w.Name, err)
			}
			return nil
		})
	}
	err := group.Wait()
	if err != nil {
		for _, w := range c.flows {
			if w.conn != nil {
				_ = w.conn.Close() // what went wrong before counts
			}
		}
	}
	return err
}

// watch runs all schedules until in ends.
func (c *client) watch(ctx context.Context, in *bufio.Reader) error {
	c.stagger()
	for _, w := range c.flows {
		w.declare()
	}
	for _, p := range c.probes {
		p.declare()
	}
	stop := newHalt()
	var running, counting sync.WaitGroup
	// An attempt that is under way when the run ends may end by itself.
	attempts := context.WithoutCancel(ctx)
	for _, w := range c.flows {
		running.Go(func() { w.run(stop, c.drain) })
	}
	for _, p := range c.probes {
		running.Go(func() { p.run(attempts, stop) })
	}
	counted := make(chan struct{})
	counting.Go(func() { c.count(counted) })
	counting.Go(func() { c.rec.Pulse("client", counted) })
	err := c.obey(ctx, in)
	stop.now()
	for _, w := range c.flows {
		// A sender that waits for its connection does not wait for ever. One that has failed already needs no limit.
		_ = w.conn.Socket.SetWriteDeadline(time.Now().Add(c.drain))
	}
	running.Wait()
	close(counted)
	counting.Wait()
	for _, w := range c.flows {
		w.finish(stop)
	}
	for _, p := range c.probes {
		p.finish(stop)
	}
	return err
}

// stagger spreads the schedules over their periods, so that frames do not come in one burst that delays itself; but in
// steps: those that are due together cost one wake-up of either end, and that is most of what a frame costs.
func (c *client) stagger() {
	n := int64(len(c.flows) + len(c.probes))
	start := record.Now() + int64(lead) + n*int64(leadEach)
	first := func(i int64, period Duration) int64 { return start + int64(period)*i/n/int64(step)*int64(step) }
	for i, w := range c.flows {
		w.first = first(int64(i), w.Period)
	}
	for i, p := range c.probes {
		p.first = first(int64(len(c.flows)+i), p.Period)
	}
}

// count writes a window of each flow now and then, of a part of them at a time: all at once would make frames late.
func (c *client) count(stop <-chan struct{}) {
	parts := 10 * ((len(c.flows)+len(c.probes)-1)/windowFlows + 1)
	tick := time.NewTicker(windowLength / 10)
	defer tick.Stop()
	for part := 0; ; part = (part + 1) % parts {
		c.turn(part, parts)
		if part%10 == 0 {
			_ = c.rec.Flush() // the error stays, and Finish returns it
		}
		select {
		case <-stop:
			return
		case <-tick.C:
		}
	}
}

// turn writes the windows of every parts-th flow.
func (c *client) turn(part, parts int) {
	now := record.Now()
	for i := part; i < len(c.flows); i += parts {
		c.flows[i].turn(c.rec, c.flows[i].id, now)
	}
	for i := part; i < len(c.probes); i += parts {
		c.probes[i].turn(c.rec, c.probes[i].id, now)
	}
}

// obey says that all is ready and does what is commanded, until in or the context ends.
func (c *client) obey(ctx context.Context, in *bufio.Reader) error {
	if err := c.rec.Say(Ready); err != nil {
		return err
	}
	commands := Commands(ctx, in)
	for {
		select {
		case <-ctx.Done():
			return nil
		case command, more := <-commands:
			switch {
			case !more:
				return nil
			case command != commandFlush:
				return fmt.Errorf("unknown command %q", command)
			}
			c.turn(0, 1)
			if err := c.rec.Say(sayFlushed); err != nil {
				return err
			}
		}
	}
}
