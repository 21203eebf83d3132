// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/admin"
	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/report"
	"github.com/evenkeel/evenkeel/cmd/internal/command"
	"github.com/evenkeel/evenkeel/cmd/internal/enrolment"
	"github.com/evenkeel/evenkeel/upgrade"
)

// reach is how a command that only reads finds the data plane: through its agent, or else by its pins.
type reach struct{ dir, socket string }

func (r *reach) flags(c *cobra.Command) {
	command.PathVar(c.Flags(), &r.dir, "pin-dir", enrolment.DefaultDir, "where the data plane is pinned")
	command.PathVar(c.Flags(), &r.socket, "admin", admin.DefaultSocket, "socket of the agent")
}

func newStatusCommand(e command.Env) *cobra.Command {
	var r reach
	var o command.Output
	c := &cobra.Command{
		Use:   "status",
		Short: "Show the data plane of this node and whether it is healthy",
		Long: `Show the data plane of this node: the agent, which generation serves, what is attached, how full the maps are, what the
sources say, which pods are enrolled and why the others are not, and whose programs run beside it.

It works without an agent, by the pins, and says so. It exits 0 if all is well and 1 if not; the first lines say what
to do.`,
		Example: "  evenkeel status\n  evenkeel status -o json | jq .problems",
		Args:    command.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.Check(c); err != nil {
				return err
			}
			s, err := r.status(c.Context())
			if err != nil {
				return err
			}
			if err := show(c, o, e.Stdout, s, func(t *table) { printStatus(t, s) }); err != nil {
				return err
			}
			if !s.Healthy {
				return command.Exit(1)
			}
			return nil
		},
	}
	r.flags(c)
	o.Flag(c)
	return c
}

// status asks the agent, and looks at the pins if none answers or if it is another's.
func (r *reach) status(ctx context.Context) (*report.Status, error) {
	client := admin.NewClient(r.socket, r.dir)
	defer client.Close()
	s, err := client.Status(ctx)
	if err == nil {
		return s, nil
	}
	if !errors.Is(err, admin.ErrNobody) {
		return nil, err
	}
	v, closeView, err := report.OpenPins(ctx, r.dir)
	if err != nil && !errors.Is(err, upgrade.ErrNoGeneration) {
		if errors.Is(err, upgrade.ErrNotInstalled) {
			return nil, err
		}
		v = nil // damage: Collect says which
	}
	if v != nil {
		defer closeView()
	}
	s, err = report.Collect(r.dir, v)
	if err == nil && s.Agent.Running {
		s.Problems = append(s.Problems, fmt.Sprintf("nothing answered at %s: name another socket with --admin if the agent "+
			"has one", r.socket))
	}
	return s, err
}

func printStatus(t *table, s *report.Status) {
	if s.Healthy {
		t.line("healthy")
	} else {
		t.line("not healthy")
	}
	for _, p := range s.Problems {
		t.line("  ! %s", p)
	}
	for _, w := range s.Warnings {
		t.line("  warning: %s", w)
	}
	t.head("agent", agentText(s.Agent))
	t.pair("pins", s.Dir)
	t.pair("serves", wordText(s.Word, s.Differs))
	if e := s.Engine; e != nil {
		w := e.Writes
		t.pair("changes", fmt.Sprintf("%d from sources, %d of them not applied as a whole; %d map elements written",
			e.Applied, e.Failed, w.ServiceIDs+w.Services+w.Slots+w.Endpoints))
	}
	t.head("HOOK", "ATTACHED", "AT", "TARGET", "LINK", "ENTRY", "GENERATION:PROGRAM", "MISSES")
	for _, h := range s.Hooks {
		t.row(h.Name, yes(h.OK), h.At, h.Target, id(h.Link), id(uint32(h.Entry)), slotsText(h.Slots), count(h.Misses))
	}
	t.head("GENERATION", "LIVE", "DIGEST", "COUNTERS (those that are not 0)")
	for _, g := range s.Generations {
		t.row(strconv.Itoa(int(g.Number)), yes(g.Live), g.Digest[:min(12, len(g.Digest))], countersText(g.Counters))
	}
	printMaps(t, s)
	printSources(t, s.Sources)
	t.head("WORKLOAD", "ENROLLED", "ADDRESSES", "WHY")
	for _, w := range s.Workloads {
		t.row(w.Name, yes(w.Enrolled), addresses(w.Addresses), w.Reason)
	}
	if len(s.Others) > 0 {
		t.head("PROGRAM OF OTHERS", "HOOK", "CGROUP", "ID", "LINK", "BEFORE OURS")
		for _, o := range s.Others {
			t.row(o.Name, o.Hook, o.Cgroup, id(uint32(o.Program)), id(o.Link), yes(o.Before))
		}
	}
}

func printMaps(t *table, s *report.Status) {
	t.head("MAP", "USED", "OF", "FULL", "MEMORY", "SIZED BY")
	for _, m := range s.Maps {
		t.row(m.Map, count(uint64(m.Used)), count(uint64(m.Capacity)),
			fmt.Sprintf("%.1f%%", 100*float64(m.Used)/float64(max(m.Capacity, 1))), memory(m.Bytes), m.Flag)
	}
}

func printSources(t *table, sources []report.Source) {
	if len(sources) == 0 {
		return
	}
	t.head("SOURCE", "APPLIED", "READ", "OBJECTS", "SKIPPED")
	for _, s := range sources {
		t.row(s.Name, yes(s.Synced), when(s.Read), kinds(s.Objects), kinds(s.Skipped))
	}
	const most = 10
	for _, s := range sources {
		for _, w := range s.Warnings[:min(len(s.Warnings), most)] {
			t.line("  warning: %s", w)
		}
		if more := len(s.Warnings) - most; more > 0 {
			t.line("  and %d more warnings: status -o json", more)
		}
	}
}

func agentText(a report.Agent) string {
	switch {
	case !a.Running:
		return "none is running"
	case !a.Answers:
		return fmt.Sprintf("pid %d does not answer: %s", a.PID, a.Command)
	}
	state := "ready"
	if !a.Ready {
		state = "not ready"
	}
	return fmt.Sprintf("%s, pid %d for node %s since %s, release %s", state, a.PID, a.Node,
		a.Since.Local().Format(time.DateTime), a.Release)
}

func wordText(w report.Word, differs bool) string {
	s := fmt.Sprintf("generation %d (floor %d, epoch %d, %s)", w.Serve, w.Floor, w.Epoch, w.Phase)
	if w.Canary != 0 {
		s += fmt.Sprintf(", canary %d for %d of 4096 new connections", w.Canary, w.Share)
	}
	if differs {
		s += "; its programs are of another release than the agent"
	}
	return s
}

func slotsText(slots []upgrade.GenerationSlot) string {
	var parts []string
	for _, s := range slots {
		if s.Program == 0 {
			parts = append(parts, fmt.Sprintf("%d:EMPTY", s.Generation))
		} else {
			parts = append(parts, fmt.Sprintf("%d:%d", s.Generation, s.Program))
		}
	}
	return strings.Join(parts, " ")
}

func countersText(counters map[string]uint64) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(counters)) {
		if counters[name] > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", name, counters[name]))
		}
	}
	return strings.Join(parts, ", ")
}

func kinds(counts map[string]int) string {
	var parts []string
	for _, kind := range slices.Sorted(maps.Keys(counts)) {
		if counts[kind] > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", kind, counts[kind]))
		}
	}
	return strings.Join(parts, ", ")
}

func addresses(all []netip.Addr) string {
	parts := make([]string, len(all))
	for i, a := range all {
		parts[i] = a.String()
	}
	return strings.Join(parts, " ")
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "NO"
}

// id is a number that the kernel gave; 0 is none.
func id(n uint32) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatUint(uint64(n), 10)
}

func count(n uint64) string { return strconv.FormatUint(n, 10) }

func memory(bytes uint64) string {
	switch {
	case bytes == 0:
		return ""
	case bytes < 1<<20:
		return fmt.Sprintf("%d KiB", (bytes+1023)>>10)
	}
	return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20))
}

func when(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.Local().Format(time.DateTime)
}
