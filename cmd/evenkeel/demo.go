// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/cmd/internal/command"
	"github.com/evenkeel/evenkeel/netsim"
)

//go:embed demo.yaml
var demoYAML []byte

// demoOptions are the flags of the demo.
type demoOptions struct {
	keep bool
	// pace is how long each act takes.
	pace time.Duration
}

func newDemoCommand(e command.Env) *cobra.Command {
	var o demoOptions
	c := &cobra.Command{
		Use:   "demo",
		Short: "Watch two simulated nodes serve while their agents are killed",
		Long: `Builds two nodes out of network namespaces, starts real HTTP, TCP and UDP clients that dial services by their cluster
addresses, kills the agents of both nodes with SIGKILL, starts them again, and changes a service. Needs root.

It exits 0 only when no request failed. The lab is taken down at the end unless --keep is given.`,
		Example: "  sudo evenkeel demo\n  sudo evenkeel demo --keep && sudo evenkeel sim exec --name demo client-left -- sh",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return runDemo(c.Context(), e, o)
		},
	}
	c.Flags().BoolVar(&o.keep, "keep", false, "leave the lab up, to look around in it")
	c.Flags().DurationVar(&o.pace, "pace", 3*time.Second, "how long each act takes")
	c.AddCommand(newDemoClientCommand(e))
	return c
}

// demo is one performance: a lab, its clients, and what is shown of them.
type demo struct {
	lab  *netsim.Lab
	mu   sync.Mutex // held by whoever touches the view
	view *demoView
	stop context.CancelFunc
	// clients ends when every client has.
	clients *errgroup.Group
}

func runDemo(ctx context.Context, e command.Env, o demoOptions) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("the demo makes network namespaces and loads BPF programs: run it as root, sudo evenkeel demo")
	}
	topology, err := netsim.Parse(bytes.NewReader(demoYAML), "demo.yaml")
	if err != nil {
		return err
	}
	d := &demo{view: &demoView{
		out: e.Stdout, width: func() int { return columns(e) }, start: time.Now(),
		color: columns(e) > 0 && e.Getenv("NO_COLOR") == "", // no-color.org
	}}
	d.event("building two nodes, their pods and their agents")
	d.lab, err = netsim.Up(ctx, topology, netsim.Options{Detached: o.keep})
	if err != nil {
		return err
	}
	defer func() {
		if o.keep && err == nil {
			return
		}
		// The lab has to go even when ctx has ended.
		down, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		err = errors.Join(err, d.lab.Down(down))
	}()
	d.event("both agents are ready: services are in the kernel, pods are enrolled")
	if err := d.perform(ctx, o.pace); err != nil {
		return err
	}
	return d.conclude(e.Stdout, o.keep)
}

// perform runs the acts while the clients ask. Clients are stopped when it returns, also after an error.
func (d *demo) perform(ctx context.Context, pace time.Duration) error {
	asking, stop := context.WithCancel(ctx)
	d.stop = stop
	d.clients, asking = errgroup.WithContext(asking)
	d.startClients(asking)
	err := d.acts(asking, pace)
	stop()
	if ended := d.clients.Wait(); err == nil || errors.Is(err, context.Canceled) {
		err = ended // why the acts were cut short, if they were
	}
	if ctx.Err() != nil {
		return fmt.Errorf("demo: %w", ctx.Err())
	}
	return err
}

func (d *demo) acts(ctx context.Context, pace time.Duration) error {
	nodes := []string{"left", "right"}
	d.event("four clients dial services by cluster address, 200 times a second each")
	if err := pause(ctx, pace); err != nil {
		return err
	}
	for _, node := range nodes {
		if err := d.lab.KillAgent(ctx, node, unix.SIGKILL); err != nil {
			return err
		}
		var killed interface{ ExitCode() int }
		if err := d.lab.WaitAgent(ctx, node); err != nil && !errors.As(err, &killed) {
			return err
		}
	}
	d.event("kill -9: both agents are dead; nothing but the kernel is left")
	if err := pause(ctx, pace); err != nil {
		return err
	}
	for _, node := range nodes {
		start := time.Now()
		if err := d.lab.StartAgent(ctx, node); err != nil {
			return err
		}
		d.event("agent of %s is back: adopted what it found in %d ms", node, time.Since(start).Milliseconds())
	}
	if err := pause(ctx, pace/2); err != nil {
		return err
	}
	topology, err := netsim.Parse(bytes.NewReader(demoYAML), "demo.yaml")
	if err != nil {
		return err
	}
	for i := range topology.Pods {
		if topology.Pods[i].Name == "web" {
			topology.Pods[i].Count += 2
		}
	}
	if _, err := d.lab.Apply(ctx, topology); err != nil {
		return err
	}
	d.event("two more pods behind the service web")
	return pause(ctx, pace/2)
}

func (d *demo) startClients(ctx context.Context) {
	for _, c := range []struct{ pod, name, kind, address string }{
		{"client-left", "http, kept open", "http", "10.96.0.10:80"},
		{"client-left", "http, new each time", "http-new", "[fd00:96::10]:80"},
		{"client-right", "tcp, kept open", "tcp", "10.96.0.20:7"},
		{"client-right", "udp, one socket", "udp", "[fd00:96::20]:7"},
	} {
		flow := &demoFlow{Name: c.name, Route: c.pod + " > " + c.address}
		d.view.flows = append(d.view.flows, flow)
		d.clients.Go(func() error {
			if err := d.runClient(ctx, flow, c.pod, c.kind, c.address); err != nil {
				return fmt.Errorf("client %s: %w", c.name, err)
			}
			return nil
		})
	}
}

// runClient runs one client in its pod and shows what it reports, until ctx ends.
func (d *demo) runClient(ctx context.Context, flow *demoFlow, pod, kind, address string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	client := d.lab.Pod(pod).Command(ctx, self, "demo", "client", kind, address)
	client.Cancel = func() error { return client.Process.Signal(syscall.SIGTERM) } // it reports once more
	client.WaitDelay = 3 * time.Second
	client.Stderr = os.Stderr
	stdout, err := client.StdoutPipe()
	if err != nil {
		return err
	}
	if err := client.Start(); err != nil {
		return err
	}
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		var report clientReport
		if err := json.Unmarshal(lines.Bytes(), &report); err != nil {
			return fmt.Errorf("read report %q: %w", lines.Text(), err)
		}
		d.mu.Lock()
		flow.add(report)
		d.view.draw()
		d.mu.Unlock()
	}
	if err := client.Wait(); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

func (d *demo) event(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.view.event(format, args...)
}

// conclude prints what was seen and how to go on. A failed request is exit code 1.
func (d *demo) conclude(out io.Writer, keep bool) error {
	done, failed := d.view.summary()
	switch {
	case done == 0:
		return errors.New("no request was answered")
	case failed > 0:
		fmt.Fprintf(out, "%d of %d requests failed.\n", failed, done+failed)
		return command.Exit(1)
	}
	fmt.Fprintf(out, "%d requests, none failed: the data plane is in the kernel, the agents only write maps.\n\n", done)
	if keep {
		fmt.Fprint(out, demoLookAround)
	} else {
		fmt.Fprintf(out, "To look around in it: %s demo --keep\n", os.Args[0])
	}
	return nil
}

const demoLookAround = `The lab is still up. Look around (as root):
  bin/evenkeel sim inspect demo                               nodes, pods, agents
  bin/evenkeel sim exec --name demo client-left -- curl -s http://10.96.0.10/
  bin/evenkeel sim exec --name demo node/left -- bin/evenkeel status --pin-dir /sys/fs/bpf/evenkeel-sim/demo/left \
      --admin /run/evenkeel-sim/demo/nodes/left/admin.sock    also: dump services, dump flows, explain, doctor
  bin/evenkeel sim graph --name demo --format html > demo.html   a picture
  bin/evenkeel sim down --name demo                           and away
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
	if !ok || !isTerminal(file) || e.Getenv("TERM") == "dumb" {
		return 0
	}
	size, err := unix.IoctlGetWinsize(int(file.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	return int(size.Col)
}

func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS)
	return err == nil
}
