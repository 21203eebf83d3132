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
	"strings"
	"sync"
)

// Place is where a process is started: a pod or a node of a lab.
type Place interface {
	Command(ctx context.Context, name string, args ...string) *exec.Cmd
}

// Process is a client, a server or a relay in a place. It ends with its standard input, so it does not outlive this
// process.
type Process struct {
	what   string
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stderr bytes.Buffer
	// said are the lines that are no part of a recording; it is closed when the process has said all.
	said    chan string
	stop    sync.Once
	stopped error
	// failed is why the recording could not be written, once said is closed.
	failed error
}

// Server is a server in a place.
type Server struct{ *Process }

// Client is a client in a place, its flows established.
type Client struct{ *Process }

// StartServer runs `BINARY flow server` in a place and returns when it listens. BINARY is evenkeel-chaos. The recording
// says when it did not run, and what it cost. The end of ctx kills it. Without ports it listens on the default ones.
func StartServer(ctx context.Context, where Place, binary, recording string, on ...Port) (*Server, error) {
	args := []string{"flow", "server"}
	for _, p := range on {
		args = append(args, "--listen", p.String())
	}
	p, err := Start("flow server", where.Command(ctx, binary, args...), nil, recording)
	if err != nil {
		return nil, err
	}
	return &Server{p}, nil
}

// StartClient runs `BINARY flow client` with a plan in a place and returns when all of its flows are established and
// the schedules begin. The recording is written to a file by this process: a file system can keep its writers waiting,
// which a client cannot afford. The end of ctx kills it: see Stop for the orderly end.
func StartClient(ctx context.Context, where Place, binary string, plan *Plan, recording string) (*Client, error) {
	text, err := json.Marshal(plan)
	if err != nil {
		return nil, fmt.Errorf("encode plan: %w", err)
	}
	p, err := Start("flow client", where.Command(ctx, binary, "flow", "client"), append(text, '\n'), recording)
	if err != nil {
		return nil, err
	}
	return &Client{p}, nil
}

// Start starts a process, writes input to it, and returns when it says that it is ready. The lines of its recording go
// to a file of that name. what is for messages.
func Start(what string, cmd *exec.Cmd, input []byte, recording string) (p *Process, err error) {
	file, err := os.Create(recording)
	if err != nil {
		return nil, fmt.Errorf("create recording: %w", err)
	}
	defer func() {
		if file != nil {
			err = errors.Join(err, file.Close())
		}
	}()
	p = &Process{what: what, cmd: cmd, said: make(chan string, 1)}
	cmd.Stderr = &p.stderr
	if p.stdin, err = cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("start %s: %w", what, err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", what, err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", what, err)
	}
	go p.listen(bufio.NewReaderSize(stdout, 64<<10), file) // ends with the process; Stop waits for it
	file = nil
	_, err = p.stdin.Write(input)
	if err == nil {
		var said string
		if said, err = p.hear(); err == nil && said != Ready {
			err = fmt.Errorf("it says %q instead of %q", said, Ready)
		}
	}
	if err != nil { // it is ending or has ended, and has said why
		return nil, errors.Join(p.Stop(), fmt.Errorf("start %s: %w", what, err))
	}
	return p, nil
}

// listen tells what the process says from what it records, until the process has said all. It closes recording.
func (p *Process) listen(stdout *bufio.Reader, recording io.WriteCloser) {
	defer close(p.said)
	for end := error(nil); end == nil; {
		var line []byte
		line, end = stdout.ReadBytes('\n')
		switch {
		case len(line) > 0 && line[0] == '{':
			if _, err := recording.Write(line); err != nil && p.failed == nil {
				p.failed = fmt.Errorf("write recording of %s: %w", p.what, err)
			}
		case end == nil:
			p.said <- strings.TrimSpace(string(line))
		}
	}
	p.failed = errors.Join(p.failed, recording.Close())
}

// Ask writes a command and returns the answer, both one line.
func (p *Process) Ask(command string) (string, error) {
	_, err := io.WriteString(p.stdin, command+"\n")
	var answer string
	if err == nil {
		answer, err = p.hear()
	}
	if err != nil {
		return "", fmt.Errorf("tell %s to %s: %w", p.what, command, err)
	}
	return answer, nil
}

func (p *Process) hear() (string, error) {
	line, more := <-p.said
	if !more {
		return "", errors.New("it has ended")
	}
	return line, nil
}

// Commands returns the lines of in, trimmed, until in or ctx ends. Its goroutine ends with in: the process, which has
// no other use for its standard input, ends with that.
func Commands(ctx context.Context, in *bufio.Reader) <-chan string {
	commands := make(chan string)
	go func() {
		defer close(commands)
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			select {
			case commands <- strings.TrimSpace(line):
			case <-ctx.Done():
				return
			}
		}
	}()
	return commands
}

// PID is the process's.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Stop ends the process in order and waits for that: a client sends what is due and waits for the answers, up to twice
// the plan's Drain. It returns what the process says if it fails. To stop it again returns the same.
func (p *Process) Stop() error {
	p.stop.Do(func() { p.stopped = p.end() })
	return p.stopped
}

func (p *Process) end() error {
	if err := p.stdin.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("stop %s: %w", p.what, err)
	}
	for range p.said {
		continue // what it may still say is of no interest
	}
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w: %s", p.what, err, strings.TrimSpace(p.stderr.String()))
	}
	return p.failed
}

// Flush ends the windows of all flows and returns when all that has happened so far is in the recording.
func (c *Client) Flush() error {
	answer, err := c.Ask(commandFlush)
	if err == nil && answer != sayFlushed {
		err = fmt.Errorf("flush flow client: it says %q", answer)
	}
	return err
}
