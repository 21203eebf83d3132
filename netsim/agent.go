// SPDX-License-Identifier: Apache-2.0

package netsim

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
)

// metricsAddress is where a node's agent serves metrics: every node has a loopback of its own.
const metricsAddress = "127.0.0.1:15090"

// startAgents starts the agents of nodes and returns when all are ready.
func (l *Lab) startAgents(ctx context.Context, nodes []*nodeState, done func()) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, n := range nodes {
		group.Go(func() error {
			if err := l.startAgent(ctx, n, nil, l.state.Agent.Args); err != nil {
				return fmt.Errorf("start agent of node %s: %w", n.Spec.Name, err)
			}
			done()
			return nil
		})
	}
	return group.Wait()
}

// UseAgent has agents that are started from now on by this Lab run another evenkeel: a release to upgrade to. Those that
// run are left alone. It is not for use while agents are started.
func (l *Lab) UseAgent(binary string) { l.options.Agent = binary }

// startAgent starts a node's agent and returns when it says READY=1 (sd_notify(3)), ends, or the context does. wrapper
// is a command line that is put in front of the agent's and becomes the agent by execve(2).
func (l *Lab) startAgent(ctx context.Context, n *nodeState, wrapper, args []string) (err error) {
	node := n.Spec.Name
	dir, cgroup := l.paths.nodeDir(node), l.paths.agentCgroup(node)
	for _, make := range []string{dir, cgroup, l.paths.nodeCgroup(node), l.paths.pins()} {
		if err := makeDirectory(make, 0o755); err != nil {
			return err
		}
	}
	log, err := os.OpenFile(l.agentLog(node), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer log.Close()
	begin, err := log.Seek(0, 2)
	if err != nil {
		return fmt.Errorf("find end of log: %w", err)
	}
	notify := filepath.Join(dir, "notify.sock")
	if err := os.RemoveAll(notify); err != nil { // of one that was killed
		return fmt.Errorf("remove old socket: %w", err)
	}
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("listen for readiness: %w", err)
	}
	defer socket.Close()
	program, err := l.agentProgram(n)
	if err != nil {
		return err
	}
	line := slices.Concat(wrapper, program.line, args)
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(append(os.Environ(), program.env...), "NOTIFY_SOCKET="+notify)
	child, err := startIn(l.paths.nodeNetns(node), cmd, cgroup)
	if err != nil {
		return err
	}
	if err := awaitReady(ctx, socket, child); err != nil {
		child.kill()
		return fmt.Errorf("%w%s", err, lastWords(l.agentLog(node), begin))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if last := l.agents[node]; last != nil { // it may still drain
		l.others = append(l.others, last)
	}
	n.Agent = &child.Process
	l.agents[node] = child
	return nil
}

// program is what runs as the agent of a node, without its arguments.
type program struct{ line, env []string }

// agentProgram prepares what runs as the agent of a node, and says what that is.
func (l *Lab) agentProgram(n *nodeState) (program, error) {
	node := n.Spec.Name
	switch l.state.Dataplane {
	case Ambient:
		_, err := l.writeProxyConfig(node)
		return program{line: []string{l.options.Binary, "sim", "ambient", "--config", l.proxyConfig(node)}}, err
	case Ztunnel:
		if _, err := l.writeProxyConfig(node); err != nil {
			return program{}, err
		}
		return l.ztunnelProgram(n)
	}
	return program{line: []string{cmp.Or(l.options.Agent, l.options.Binary), "agent", "--node", node, "--source", l.paths.manifests(),
		"--pin-dir", l.paths.nodePins(node), "--cgroup", l.paths.nodeCgroup(node),
		"--admin", l.adminSocket(node), "--metrics", metricsAddress}}, nil
}

func (l *Lab) agentLog(node string) string { return filepath.Join(l.paths.nodeDir(node), "agent.log") }

func (l *Lab) adminSocket(node string) string {
	return filepath.Join(l.paths.nodeDir(node), "admin.sock")
}

// awaitReady reads notifications until one is READY=1.
func awaitReady(ctx context.Context, socket *net.UnixConn, child *child) error {
	// The read ends when the child or the context does.
	watched := make(chan struct{})
	read := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-child.done:
		case <-ctx.Done():
		case <-read:
			return
		}
		_ = socket.SetReadDeadline(time.Now()) // cannot fail on an open socket
	}()
	defer func() { close(read); <-watched }()
	buffer := make([]byte, 4096)
	for {
		n, err := socket.Read(buffer)
		switch {
		case err == nil:
			for line := range bytes.Lines(buffer[:n]) {
				if string(bytes.TrimSpace(line)) == "READY=1" {
					return nil
				}
			}
		case ctx.Err() != nil:
			return fmt.Errorf("wait until it is ready: %w", ctx.Err())
		case errors.Is(err, os.ErrDeadlineExceeded):
			return child.ended()
		default:
			return fmt.Errorf("wait until it is ready: %w", err)
		}
	}
}

// ended says how a child that should have gone on has ended.
func (c *child) ended() error {
	if c.err != nil {
		return fmt.Errorf("it ended: %w", c.err)
	}
	return errors.New("it ended with exit status 0")
}

// lastWords returns the end of what a process wrote to its log since begin, for an error message.
func lastWords(path string, begin int64) string {
	const most = 2000 // bytes
	text, err := os.ReadFile(path)
	if err != nil || int64(len(text)) <= begin {
		return "; it wrote nothing to " + path
	}
	text = bytes.TrimSpace(text[begin:])
	if len(text) > most {
		text = text[len(text)-most:]
	}
	lines := bytes.Split(text, []byte("\n"))
	lines = lines[max(0, len(lines)-5):]
	return fmt.Sprintf("; %s ends: %s", path, bytes.Join(lines, []byte("\n\t")))
}
