// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/chaos/result"
	"github.com/evenkeel/evenkeel/netsim"
	"github.com/evenkeel/evenkeel/netsim/flow"
	"github.com/evenkeel/evenkeel/netsim/flow/record"
)

// demoService is where the service shop is dialled.
var demoService = netip.MustParseAddr("10.96.0.30")

var demoNodes = []string{"left", "right"}

// side is one of the two clusters, and what is seen there.
type side struct {
	plane     netsim.Dataplane
	self, dir string // the program of clients and servers, and where they record
	lab       *netsim.Lab
	servers   []*flow.Server
	clients   []*flow.Client
	tails     []*record.Tail
	files     []string
	run       *result.Run

	mu *sync.Mutex // the demo's: of what is shown, below, and of tails
	// watched tells that there are connections.
	watched bool
	rows    []*row
	byID    map[uint64]*row
	healed  int64 // when the last fault was over
}

// row is a connection as it is shown, with those that took its place when it broke.
type row struct {
	flow.Spec
	// Received counts answers, lost those connections that broke, or attempts that failed.
	received, lost uint64
	// attempts tells that each request has a connection of its own; broken that the last connection is gone.
	attempts, broken bool
	answered         int64 // when the last step began in which it was
	marks            []mark
	// good and bad are since the last mark.
	good, bad bool
	quiet     int // marks without anything
}

// mark is what became of requests in a step; the worse, the greater.
type mark uint8

const (
	markIdle mark = iota // nothing was answered and nothing failed
	markGood
	markBad
)

func newSide(plane netsim.Dataplane, self, dir string, mu *sync.Mutex) *side {
	s := &side{plane: plane, self: self, dir: dir, mu: mu, byID: map[uint64]*row{},
		run: &result.Run{Name: "demo", Dataplane: string(plane)}}
	for _, spec := range connections() {
		s.rows = append(s.rows, &row{Spec: spec, attempts: spec.Must != ""})
	}
	return s
}

// up makes the lab and starts the servers.
func (s *side) up(ctx context.Context, keep bool) error {
	topology, err := demoTopology(s.plane)
	if err != nil {
		return err
	}
	options := netsim.Options{Binary: filepath.Join(filepath.Dir(s.self), "evenkeel"), Detached: keep}
	if s.lab, err = netsim.Up(ctx, topology, options); err != nil {
		return err
	}
	server, err := flow.StartServer(context.WithoutCancel(ctx), s.lab.Pod("shop"), s.self, s.file("server"))
	if err != nil {
		return err
	}
	s.servers = append(s.servers, server)
	s.run.Wall, s.run.Start = time.Now(), record.Now()
	s.run.Phases = []record.Phase{{Time: s.run.Start, Name: "without a fault", FaultFree: true}}
	return nil
}

func (s *side) file(what string) string {
	path := filepath.Join(s.dir, fmt.Sprintf("%s-%d-%s.ndjson", s.plane, len(s.files), what))
	s.files = append(s.files, path)
	return path
}

// connect opens the connections that there are not: all in the beginning, later those that broke. No client does that by
// itself: a connection is one for its whole life.
func (s *side) connect(ctx context.Context) error {
	plan := s.missing()
	if len(plan.Flows) == 0 {
		return nil
	}
	path := s.file("client")
	client, err := flow.StartClient(context.WithoutCancel(ctx), s.lab.Pod("client-left"), s.self, plan, path)
	if err != nil {
		return err
	}
	s.clients = append(s.clients, client)
	tail, err := record.OpenTail(path)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tails = append(s.tails, tail)
	s.watched = true
	return nil
}

// heal notes that a fault is over.
func (s *side) heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.healed = record.Now()
}

// well tells whether each connection has been answered since the last fault was over.
func (s *side) well() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !slices.ContainsFunc(s.rows, func(r *row) bool { return !r.attempts && (r.broken || r.answered <= s.healed) })
}

// missing is a plan of the connections that there are not, which from now on are taken for being opened: if that fails
// their client says so.
func (s *side) missing() *flow.Plan {
	s.mu.Lock()
	defer s.mu.Unlock()
	plan := &flow.Plan{Drain: flow.Duration(time.Second)}
	for _, r := range s.rows {
		if s.watched && !r.broken {
			continue
		}
		r.broken = false
		spec := r.Spec
		if n := len(s.clients); n > 0 {
			spec.Name = fmt.Sprintf("%s%s%d", spec.Name, again, n+1)
		}
		for _, k := range flow.Kinds() {
			if k.Name == spec.Kind {
				spec.To = k.Address(demoService)
			}
		}
		plan.Flows = append(plan.Flows, spec)
	}
	return plan
}

// again is between the name of a connection and how often it was opened.
const again = ", "

// kill kills the agents of all nodes at once, and starts them again after a while.
func (s *side) kill(ctx context.Context, dead time.Duration) error {
	defer s.fault("kill")()
	for _, node := range demoNodes {
		if err := s.lab.KillAgent(ctx, node, unix.SIGKILL); err != nil {
			return err
		}
	}
	for _, node := range demoNodes {
		var killed interface{ ExitCode() int }
		if err := s.lab.WaitAgent(ctx, node); err != nil && !errors.As(err, &killed) {
			return err
		}
	}
	if err := pause(ctx, dead); err != nil {
		return err
	}
	for _, node := range demoNodes {
		if err := s.lab.StartAgent(ctx, node); err != nil {
			return err
		}
	}
	return nil
}

// restart replaces the agents in order, node by node.
func (s *side) restart(ctx context.Context) error {
	defer s.fault("restart")()
	for _, node := range demoNodes {
		if err := s.lab.RestartAgent(ctx, node); err != nil {
			return err
		}
	}
	return nil
}

// fault notes that something begins; what it returns notes that it is over.
func (s *side) fault(name string) (over func()) {
	f := &result.Fault{Spec: name, Name: name, Group: "process", Start: record.Now(), Active: uint64(len(demoNodes))}
	s.run.Faults = append(s.run.Faults, f)
	s.run.Phases = append(s.run.Phases, record.Phase{Time: f.Start, Name: name})
	return func() { f.End = record.Now() }
}

// follow takes what clients have recorded since it was last called, and sets a mark.
func (s *side) follow() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tails {
		if err := t.Next(func(line any) error { s.see(line); return nil }); err != nil {
			return err
		}
	}
	for _, r := range s.rows {
		r.mark()
	}
	return nil
}

func (s *side) see(line any) {
	switch line := line.(type) {
	case *record.Flow:
		for _, r := range s.rows {
			if line.Name == r.Name || strings.HasPrefix(line.Name, r.Name+again) {
				s.byID[line.ID] = r
				r.broken = false
			}
		}
	case *record.Window:
		if r := s.byID[line.Flow]; r != nil {
			r.received += line.Received
			if line.Received > 0 {
				r.good, r.answered = true, max(r.answered, line.From)
			}
			r.bad = r.bad || r.attempts && line.Received < line.Sent/2
		}
	case *record.Done:
		if r := s.byID[line.Flow]; r != nil && r.attempts {
			r.lost = line.Breaks // of which only the first have lines
		}
	case *record.Break:
		if r := s.byID[line.Flow]; r != nil {
			if r.attempts || !r.broken {
				r.lost++
			}
			r.bad = true
			r.broken = !r.attempts
		}
	}
}

// mark ends a step. Clients count as often as there are steps, so one alone may be empty.
func (r *row) mark() {
	m := markIdle
	r.quiet++
	if r.good || r.bad {
		r.quiet = 0
	}
	switch {
	case r.bad || r.broken:
		m = markBad
	case r.good:
		m = markGood
	case r.quiet < 3 && len(r.marks) > 0:
		m = r.marks[len(r.marks)-1]
	}
	r.good, r.bad = false, false
	r.marks = append(r.marks, m)
}

// lost is how many connections broke; attempts that failed do not count.
func (s *side) lost() uint64 {
	var n uint64
	for _, r := range s.rows {
		if !r.attempts {
			n += r.lost
		}
	}
	return n
}

// judge ends the connections, and says what became of them.
func (s *side) judge(context.Context) error {
	s.run.End = record.Now()
	group := errgroup.Group{}
	for _, c := range s.clients {
		group.Go(c.Stop)
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for _, server := range s.servers {
		if err := server.Stop(); err != nil {
			return err
		}
	}
	phases := s.file("phases")
	file, err := os.Create(phases)
	if err != nil {
		return fmt.Errorf("write phases: %w", err)
	}
	w := record.NewWriter(file, "suite", "")
	for i := range s.run.Phases {
		w.Write(&s.run.Phases[i])
	}
	if err := errors.Join(w.Finish(), file.Close()); err != nil {
		return fmt.Errorf("write phases: %w", err)
	}
	if s.run.Report, err = record.JudgeFiles(s.files...); err != nil {
		return err
	}
	return s.run.Draw(s.files...)
}

// close ends what runs, whatever has become of the demo.
func (s *side) close(ctx context.Context, keep bool) error {
	var errs []error
	for _, t := range s.tails {
		errs = append(errs, t.Close())
	}
	for _, c := range s.clients {
		errs = append(errs, c.Stop())
	}
	for _, server := range s.servers {
		errs = append(errs, server.Stop())
	}
	if s.lab != nil && !keep {
		// The lab has to go even when ctx has ended.
		down, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		errs = append(errs, s.lab.Down(down))
	}
	return errors.Join(errs...)
}
