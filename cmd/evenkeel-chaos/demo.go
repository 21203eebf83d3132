// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/chaos/report"
	"github.com/evenkeel/evenkeel/chaos/result"
	"github.com/evenkeel/evenkeel/cmd/internal/command"
	"github.com/evenkeel/evenkeel/netsim"
	"github.com/evenkeel/evenkeel/netsim/flow"
	"github.com/evenkeel/evenkeel/netsim/flow/record"
)

//go:embed demo.yaml
var demoYAML []byte

// demoOptions are the flags of the demo.
type demoOptions struct {
	keep, plain bool
	// pace is how long each act takes.
	pace time.Duration
	page string
}

func newDemoCommand(e command.Env) *cobra.Command {
	var o demoOptions
	c := &cobra.Command{
		Use:   "demo",
		Short: "Watch two meshes serve the same traffic while their node agents are killed",
		Long: `Makes the same cluster twice out of network namespaces: once with Evenkeel, whose data plane is in the kernel, once
with a proxy on each node that holds the connections of its pods, as ztunnel does. Both serve the same connections while
the same is done to both: agents and proxies are killed with SIGKILL, started again, restarted in the orderly way, and
killed again. Needs root.

On a terminal it is drawn as it happens; q ends it. Elsewhere, or with --plain, it is told in lines. It exits 0 only when
no request through Evenkeel failed. What the other side loses is shown, and is no failure of the demo.`,
		Example: "  sudo evenkeel-chaos demo\n  sudo evenkeel-chaos demo --report demo.html\n  sudo evenkeel-chaos demo --keep",
		Args:    command.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkDirectory("--report", o.page); err != nil {
				return command.Usage(c, err)
			}
			return runDemo(c.Context(), e, o)
		},
	}
	c.Flags().BoolVar(&o.keep, "keep", false, "leave both labs up, to look around in them")
	c.Flags().BoolVar(&o.plain, "plain", false, "tell it in lines, also on a terminal")
	c.Flags().DurationVar(&o.pace, "pace", 1500*time.Millisecond, "how long each act takes")
	command.PathVar(c.Flags(), &o.page, "report", "", "write what became of every connection to this HTML file")
	return c
}

// demo is one performance: the same on two sides.
type demo struct {
	start time.Time
	self  string // the path of this program, for people to type
	sides []*side

	mu     sync.Mutex // held by whoever touches what is shown
	events []demoEvent
	out    io.Writer // for events, nil where they are drawn
}

type demoEvent struct {
	at   time.Duration
	text string
}

func runDemo(ctx context.Context, e command.Env, o demoOptions) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("the demo makes network namespaces and loads BPF programs: run it as root, sudo evenkeel-chaos demo")
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	dir, err := os.MkdirTemp("", "evenkeel-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	d := &demo{start: time.Now(), self: fromHere(self)}
	for _, plane := range []netsim.Dataplane{netsim.Evenkeel, netsim.Ambient} {
		d.sides = append(d.sides, newSide(plane, self, dir, &d.mu))
	}
	defer func() {
		for _, s := range d.sides {
			err = errors.Join(err, s.close(ctx, o.keep && err == nil))
		}
	}()
	if columns(e) == 0 || o.plain {
		d.out = e.Stdout
		err = d.perform(ctx, o)
	} else {
		err = d.draw(ctx, e, o)
	}
	if err != nil {
		return err
	}
	return d.conclude(e.Stdout, o)
}

// draw performs while a terminal shows it.
func (d *demo) draw(ctx context.Context, e command.Env, o demoOptions) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	view := &demoView{demo: d, quit: cancel, width: columns(e)}
	program := tea.NewProgram(view, tea.WithInput(e.Stdin),
		tea.WithOutput(e.Stdout), tea.WithoutSignalHandler())
	performed := make(chan error, 1)
	go func() {
		performed <- d.perform(ctx, o)
		program.Quit()
	}()
	_, err := program.Run()
	cancel() // the terminal may have gone first
	err = errors.Join(<-performed, err)
	if view.ended && err != nil {
		return errors.New("ended by a key, before there was anything to conclude")
	}
	return err
}

// perform makes the labs, lets the acts happen on both sides at once, and judges.
// step is how long a mark of the picture lasts: as often as clients count.
const step = 250 * time.Millisecond

// watch takes what clients report to what is shown, until ctx ends.
func (d *demo) watch(ctx context.Context) error {
	tick := time.NewTicker(step)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for _, s := range d.sides {
			if err := s.follow(); err != nil {
				return err
			}
		}
	}
}

func (d *demo) event(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	e := demoEvent{time.Since(d.start), fmt.Sprintf(format, args...)}
	d.events = append(d.events, e)
	if d.out == nil {
		return
	}
	if lost := d.lost(); lost != "" {
		fmt.Fprintf(d.out, "%8s  %s\n", "", lost)
	}
	fmt.Fprintf(d.out, "%6.1f s  %s\n", e.at.Seconds(), e.text)
}

// lost says how many connections each side has lost so far, once there are any.
func (d *demo) lost() string {
	var parts []string
	for _, s := range d.sides {
		if s.watched {
			parts = append(parts, fmt.Sprintf("%s: %d connections lost", s.plane, s.lost()))
		}
	}
	return strings.Join(parts, "; ")
}

// conclude says what was seen and how to go on. A request through Evenkeel that failed is exit code 1.
func (d *demo) conclude(out io.Writer, o demoOptions) error {
	ours, theirs := d.sides[0].run.Report, d.sides[1].run.Report
	d.mu.Lock()
	fmt.Fprint(out, "\n"+d.table()+"\n")
	d.mu.Unlock()
	var sent, answered uint64
	for _, f := range ours.Details {
		sent, answered = sent+f.Sent, answered+f.Received
	}
	bad := ours.Flows.Broken + int(ours.WrongVerdicts)
	sentence := fmt.Sprintf("Through evenkeel %d requests, none failed, no connection noticed. Through the proxies %d of %d "+
		"connections broke, and %d new ones failed.", answered, theirs.Flows.Broken,
		theirs.Flows.Broken+theirs.Flows.Stalled+theirs.Flows.Intact, theirs.WrongVerdicts)
	if bad > 0 {
		sentence = fmt.Sprintf("Through evenkeel %d of %d requests were answered: %d connections broke, %d new ones failed.",
			answered, sent, ours.Flows.Broken, ours.WrongVerdicts)
	}
	fmt.Fprintln(out, sentence)
	if o.page != "" {
		if err := writePage(d.report(sentence, bad > 0), o.page); err != nil {
			return err
		}
		fmt.Fprintf(out, "\nwritten: %s\n", o.page)
	}
	if answered == 0 {
		return errors.New("no request was answered")
	}
	if bad > 0 {
		return command.Exit(1)
	}
	if o.keep {
		fmt.Fprint(out, demoLookAround)
	} else {
		fmt.Fprintf(out, "\nTo look around in it: %s demo --keep.", d.self)
		if o.page == "" {
			fmt.Fprint(out, " Every connection on a page: --report demo.html")
		}
		fmt.Fprintln(out)
	}
	return nil
}

// report is what the page is made of: one expectation, with a run on either side.
func (d *demo) report(sentence string, failed bool) *report.Report {
	found := &result.Result{Version: result.Version, Dataplane: string(netsim.Evenkeel)}
	for _, s := range d.sides {
		s.run.Control = s.plane != netsim.Evenkeel
		found.Runs = append(found.Runs, s.run)
	}
	r := &report.Report{Version: report.Version, Title: "evenkeel demo", Answer: report.Yes, Sentence: sentence, Began: d.start,
		Seconds: time.Since(d.start).Seconds(), About: machine(), Repeat: "evenkeel-chaos demo"}
	spec := report.Spec{Group: "demo", Name: "the same traffic and the same faults on both sides", State: report.Passed,
		Seconds: r.Seconds, Result: found}
	if failed {
		r.Answer, spec.State = report.No, report.Failed
	}
	r.Add(spec)
	return r
}

// fromHere is a path as short as it can be typed from the working directory.
func fromHere(path string) string {
	here, err := os.Getwd()
	if err != nil {
		return path
	}
	if short, err := filepath.Rel(here, path); err == nil && filepath.IsLocal(short) {
		return short
	}
	return path
}

const demoLookAround = `
The labs are still up. Look around (as root):
  bin/evenkeel sim inspect demo                               nodes, pods, agents
  bin/evenkeel sim call --name demo client-left http://10.96.0.10/
  bin/evenkeel sim exec --name demo node/left -- bin/evenkeel status --pin-dir /sys/fs/bpf/evenkeel-sim/demo/left \
      --admin /run/evenkeel-sim/demo/nodes/left/admin.sock    also: dump services, dump flows, explain, doctor
  bin/evenkeel sim graph --name demo --format html > demo.html   a picture
  bin/evenkeel sim down --name demo; bin/evenkeel sim down --name demo-ambient   and away
`

// pause waits, or returns why ctx ended.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// columns is the width of the terminal that standard output is, 0 if it is none or none that can be drawn on.
func columns(e command.Env) int {
	file, ok := e.Stdout.(*os.File)
	if !ok || e.Getenv("TERM") == "dumb" {
		return 0
	}
	size, err := unix.IoctlGetWinsize(int(file.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	return int(size.Col)
}

// drain is how long a proxy that is asked to end serves on. ztunnel's default is 5 s; whatever it is, a connection that
// outlives it is cut.
const drain = time.Second

// connections are what either side carries: TCP, for a proxy has nothing to do with UDP.
func connections() []flow.Spec {
	var specs []flow.Spec
	for _, c := range []struct{ name, kind string }{
		{"TCP, kept open", "trickle"}, {"TLS", "tls"}, {"HTTP, kept alive", "http"}, {"HTTP/2", "http2"}, {"gRPC stream", "grpc"},
		{"WebSocket", "websocket"}, {"TCP, new each time", "probe"},
	} {
		s := flow.Spec{Name: c.name, Kind: c.kind}
		if c.kind == "probe" {
			s.Must = record.MustPass
		}
		specs = append(specs, s)
	}
	return specs
}

// demoTopology is the lab of a side.
func demoTopology(plane netsim.Dataplane) (*netsim.Topology, error) {
	topology, err := netsim.Parse(bytes.NewReader(demoYAML), "demo.yaml")
	if err == nil && plane != netsim.Evenkeel {
		topology.Name += "-" + string(plane)
		topology.Dataplane = plane
		topology.Agent.Args = []string{"--drain", drain.String()}
	}
	return topology, err
}
