// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/bench/load"
	"github.com/evenkeel/evenkeel/netsim"
)

// worker is an evenkeel-load in a pod.
type worker struct {
	*child
	answers *json.Decoder
}

// startWorker starts evenkeel-load in a pod.
func (s *session) startWorker(ctx context.Context, pod *netsim.Pod, args ...string) (*worker, error) {
	command := pod.Command(ctx, s.load, args...)
	command.WaitDelay = time.Second
	if args[0] != "serve-http" {
		// The runtime interrupts a thread that does not come back to it in 10 ms; ours never do.
		command.Env = append(os.Environ(), "GODEBUG=asyncpreemptoff=1")
	}
	c, err := startChild("evenkeel-load "+args[0], command)
	if err != nil {
		return nil, err
	}
	w := &worker{child: c, answers: json.NewDecoder(c.stdout)}
	if args[0] == "client" {
		return w, nil
	}
	line := make([]byte, len("ready\n"))
	if _, err := io.ReadFull(c.stdout, line); err != nil {
		return nil, w.failed(err)
	}
	return w, nil
}

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
	charged        []int         // whose CPU time an operation costs, beside the client's
	own            []int         // processes of this link
	spent          time.Duration // by those; see used
}

// used returns what both ends, and the agent if there is one, have used since it was called last.
func (l *link) used() (time.Duration, error) {
	sum := time.Duration(0)
	for _, pid := range l.own {
		used, err := load.CPUTime(pid)
		if err != nil {
			return 0, err
		}
		sum += used
	}
	since := sum - l.spent
	l.spent = sum
	return since, nil
}

// connect starts both ends of a pair. The client dials the pod, or the service if there is one.
func (s *session) connect(ctx context.Context, at *site, p pair, service bool, c conditions) (*link, error) {
	clientCPU, serverCPU := c.cpus(s.cpus)
	port := ports[c.server]
	l := &link{to: netip.AddrPortFrom(p.server.Addresses[0], port)}
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
	l.charged = append(l.charged, l.server.command.Process.Pid)
	if at.agent != 0 {
		l.charged = append(l.charged, at.agent)
	}
	l.own = append(slices.Clone(l.charged), l.client.command.Process.Pid)
	l.charged = append(l.charged, s.kernelThreads...)
	if _, err := l.used(); err != nil { // what starting took is not a block's
		return nil, errors.Join(err, l.close())
	}
	return l, nil
}

func (l *link) close() error { return errors.Join(l.client.close(), l.server.close()) }
