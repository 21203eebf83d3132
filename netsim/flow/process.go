// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Place is where a process is started: a pod or a node of a lab.
type Place interface {
	Command(ctx context.Context, name string, args ...string) *exec.Cmd
}

// process is a client or a server in a place. It ends with its standard input, so it does not outlive this process.
type process struct {
	what   string
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout *bufio.Reader
	stderr bytes.Buffer
}

// Server is a server in a place.
type Server struct{ process }

// Client is a client in a place, its flows established.
type Client struct{ process }

// StartServer runs `BINARY flow server` in a place and returns when it listens. BINARY is evenkeel-chaos. The end of
// ctx kills it.
func StartServer(ctx context.Context, where Place, binary string) (*Server, error) {
	s := &Server{process{what: "flow server"}}
	if err := s.start(where.Command(ctx, binary, "flow", "server"), nil); err != nil {
		return nil, err
	}
	return s, nil
}

// StartClient runs `BINARY flow client` with a plan in a place and returns when all of its flows are established and
// the schedules begin. The recording is written to a file. The end of ctx kills it: see Stop for the orderly end.
func StartClient(ctx context.Context, where Place, binary string, plan *Plan, recording string) (*Client, error) {
	text, err := json.Marshal(plan)
	if err != nil {
		return nil, fmt.Errorf("encode plan: %w", err)
	}
	recording, err = filepath.Abs(recording)
	if err != nil {
		return nil, fmt.Errorf("find recording: %w", err)
	}
	c := &Client{process{what: "flow client"}}
	if err := c.start(where.Command(ctx, binary, "flow", "client", "--record", recording), append(text, '\n')); err != nil {
		return nil, err
	}
	return c, nil
}

// start starts the process, writes to it, and waits until it is ready.
func (p *process) start(cmd *exec.Cmd, input []byte) error {
	p.cmd = cmd
	cmd.Stderr = &p.stderr
	var err error
	if p.stdin, err = cmd.StdinPipe(); err != nil {
		return fmt.Errorf("start %s: %w", p.what, err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("start %s: %w", p.what, err)
	}
	p.stdout = bufio.NewReader(stdout)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.what, err)
	}
	_, err = p.stdin.Write(input)
	if err == nil {
		err = p.expect(sayReady)
	}
	if err != nil { // it is ending or has ended, and has said why
		return errors.Join(p.Stop(), fmt.Errorf("start %s: %w", p.what, err))
	}
	return nil
}

func (p *process) expect(what string) error {
	line, err := p.stdout.ReadString('\n')
	if err != nil {
		return fmt.Errorf("wait until it says %q: %w", what, err)
	}
	if got := strings.TrimSpace(line); got != what {
		return fmt.Errorf("it says %q instead of %q", got, what)
	}
	return nil
}

// PID is the process's.
func (p *process) PID() int { return p.cmd.Process.Pid }

// Stop ends the process in order and waits for that: a client sends what is due and waits for the answers, up to twice
// the plan's Drain. It returns what the process says if it fails.
func (p *process) Stop() error {
	if err := p.stdin.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("stop %s: %w", p.what, err)
	}
	_, _ = io.Copy(io.Discard, p.stdout) // Wait closes it, and what it may still say is of no interest
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w: %s", p.what, err, strings.TrimSpace(p.stderr.String()))
	}
	return nil
}

// Flush returns when all that has happened so far is in the recording.
func (c *Client) Flush() error {
	_, err := io.WriteString(c.stdin, commandFlush+"\n")
	if err == nil {
		err = c.expect(sayFlushed)
	}
	if err != nil {
		return fmt.Errorf("flush flow client: %w", err)
	}
	return nil
}
