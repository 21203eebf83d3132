// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"time"

	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/bench/load"
	"github.com/evenkeel/evenkeel/netsim"
)

// worker is a process in a pod that this one talks to. Standard input is what keeps it alive.
type worker struct {
	command *exec.Cmd
	stdin   io.WriteCloser
	stderr  *bytes.Buffer
	answers *json.Decoder
}

// startWorker starts evenkeel-load in a pod.
func (s *session) startWorker(ctx context.Context, pod *netsim.Pod, args ...string) (*worker, error) {
	w := &worker{command: pod.Command(ctx, s.load, args...), stderr: &bytes.Buffer{}}
	w.command.Stderr = w.stderr
	w.command.WaitDelay = time.Second
	if args[0] != "serve-http" {
		// The runtime interrupts a thread that does not come back to it in 10 ms; ours never do.
		w.command.Env = append(os.Environ(), "GODEBUG=asyncpreemptoff=1")
	}
	var err error
	if w.stdin, err = w.command.StdinPipe(); err != nil {
		return nil, fmt.Errorf("start %s: %w", args[0], err)
	}
	stdout, err := w.command.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", args[0], err)
	}
	if err := w.command.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", args[0], err)
	}
	if args[0] == "client" {
		w.answers = json.NewDecoder(stdout)
		return w, nil
	}
	line := make([]byte, len("ready\n"))
	if _, err := io.ReadFull(stdout, line); err != nil {
		return nil, w.failed(err)
	}
	return w, nil
}

// failed ends a worker that does not do what it should, and adds to the error what it said.
func (w *worker) failed(err error) error { return errors.Join(err, w.close()) }

// do has a client run a block.
func (w *worker) do(b load.Block) (load.Result, error) {
	if err := json.NewEncoder(w.stdin).Encode(b); err != nil {
		return load.Result{}, w.failed(fmt.Errorf("order block: %w", err))
	}
	var r load.Result
	if err := w.answers.Decode(&r); err != nil {
		return load.Result{}, w.failed(fmt.Errorf("read result of block: %w", err))
	}
	if r.Error != "" {
		return load.Result{}, errors.New(r.Error)
	}
	if r.Operations == 0 {
		return load.Result{}, fmt.Errorf("%s to %v: nothing was done in %v", b.Kind, b.To, r.Elapsed)
	}
	return r, nil
}

// close ends the worker. It may be called again.
func (w *worker) close() error {
	w.stdin.Close()
	if w.command.ProcessState != nil {
		return nil
	}
	if err := w.command.Wait(); err != nil {
		return fmt.Errorf("evenkeel-load: %w: %s", err, bytes.TrimSpace(w.stderr.Bytes()))
	}
	return nil
}

// conditions are what a trial keeps the same for all of its arms.
type conditions struct {
	twoCores   bool
	congestion string // reno or bbr
	server     string // serve-one, serve-many or serve-http
}

// cpus returns where client and server run: the last CPU, or the last two.
func (c conditions) cpus(count int) (client, server int) {
	client, server = count-1, count-1
	if c.twoCores {
		client = count - 2
	}
	return client, server
}

// link is a client and the server that it asks, both running.
type link struct {
	client, server *worker
	to             netip.AddrPort
	charged        []int
}

// connect starts both ends of a pair. The client dials the pod, or the service if there is one.
func (s *session) connect(ctx context.Context, at *site, p pair, service bool, c conditions) (*link, error) {
	clientCPU, serverCPU := c.cpus(s.cpus)
	port := ports[c.server]
	l := &link{to: netip.AddrPortFrom(p.server.Addresses[0], port), charged: s.kernelThreads}
	if service {
		l.to = netip.AddrPortFrom(p.service, port)
	}
	var err error
	l.server, err = s.startWorker(ctx, p.server, c.server, "--cpu", fmt.Sprint(serverCPU), "--congestion", c.congestion,
		"--listen", fmt.Sprintf("0.0.0.0:%d", port))
	if err != nil {
		return nil, err
	}
	l.client, err = s.startWorker(ctx, p.client, "client", "--cpu", fmt.Sprint(clientCPU), "--congestion", c.congestion)
	if err != nil {
		return nil, errors.Join(err, l.server.close())
	}
	l.charged = append(l.charged[:len(l.charged):len(l.charged)], l.server.command.Process.Pid)
	if at.agent != 0 {
		l.charged = append(l.charged, at.agent)
	}
	return l, nil
}

func (l *link) close() error { return errors.Join(l.client.close(), l.server.close()) }
