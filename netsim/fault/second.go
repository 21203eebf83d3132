// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/netsim"
)

// SecondAgent starts another agent with the same arguments while one runs. What comes of that is for the two to
// settle; see Ended.
type SecondAgent struct {
	Agent   *Agent         `json:"agent"`
	First   netsim.Process `json:"first"`
	Process netsim.Process `json:"process"` // the second, after Inject

	ended  chan struct{}
	err    error
	output output
}

// output keeps what a process says.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(text []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(text)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func (s *SecondAgent) String() string { return "second-agent " + s.Agent.String() }

// Prepare finds the first agent.
func (s *SecondAgent) Prepare(context.Context) error { return find(s.Agent, &s.First) }

// Inject starts the second agent, in the namespace and cgroup of the first, and returns when it has said something or
// has ended.
func (s *SecondAgent) Inject(ctx context.Context) error {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", s.First.PID))
	if err != nil {
		return fmt.Errorf("read command line of the first agent: %w", err)
	}
	args := strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")
	root, err := mountPoint("")
	if err != nil {
		return err
	}
	path, _, err := cgroupOf(s.First.PID, "")
	if err != nil {
		return err
	}
	enter := []string{"sim", "enter", "--netns", fmt.Sprintf("/proc/%d/ns/net", s.First.PID), "--cgroup", root + path, "--"}
	cmd := exec.Command(s.Agent.Binary, append(enter, args...)...)
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	cmd.Stdout, cmd.Stderr = &s.output, &s.output
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start second agent: %w", err)
	}
	s.ended = make(chan struct{})
	if s.Process, err = netsim.ProcessOf(cmd.Process.Pid); err != nil {
		s.Process = netsim.Process{PID: cmd.Process.Pid} // it has ended already
	}
	go func() {
		defer close(s.ended)
		s.err = cmd.Wait()
	}()
	return await(ctx, "the second agent says something", func() (bool, error) {
		n, err := s.Active(ctx)
		return n > 0, err
	})
}

// Ended returns how the second agent has ended, and what it said, once it has.
func (s *SecondAgent) Ended(ctx context.Context) (said string, err error) {
	select {
	case <-s.ended:
		return s.output.String(), s.err
	case <-ctx.Done():
		return s.output.String(), ctx.Err()
	}
}

// Heal ends the second agent, and starts the first if it has given way.
func (s *SecondAgent) Heal(ctx context.Context) error {
	if s.Process.Start != 0 {
		if err := killProcess(ctx, s.Process); err != nil {
			return err
		}
	}
	if s.ended != nil {
		<-s.ended
	}
	return s.Agent.start(ctx)
}

// Active is 1 once the second agent has come to a decision: it has said something, or has ended.
func (s *SecondAgent) Active(context.Context) (uint64, error) {
	if s.ended == nil {
		return 0, nil
	}
	select {
	case <-s.ended:
		return 1, nil
	default:
	}
	if s.output.String() != "" { // it may be dead already, and not yet be waited for
		return 1, nil
	}
	return 0, nil
}
