// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Options are those of a supervisor.
type Options struct {
	// Self is the command line that leads to [Main] with the arguments that follow.
	Self []string
	// Calls are the names of the system calls to watch; none means all of [CallNames].
	Calls []string
	// Decide is asked before and after each watched call of the process; nil lets all through.
	Decide Decide
}

// Supervisor supervises one process, from before its first instruction to its end.
type Supervisor struct {
	self   []string
	decide Decide
	dir    string
	tracer *exec.Cmd
	orders *json.Encoder
	pipe   io.WriteCloser // of orders
	done   chan struct{}  // closed when the process has ended, or there will be none
	halted chan struct{}  // closed when the process was first stopped or wedged

	mu     sync.Mutex // of orders and what follows
	calls  []Call
	acted  *Moment
	pid    int
	pidfd  int // of the process, once there is one
	status unix.WaitStatus
	err    error
}

// Moment is when a supervisor acted, and how.
type Moment struct {
	Call   Call
	When   When
	Action Action
}

// String is "kill after 12: renameat2 /a /b".
func (m Moment) String() string {
	return fmt.Sprintf("%v %v %d: %v", m.Action, m.When, m.Call.Number, m.Call)
}

// New returns a supervisor that waits for its process: start what Wrap returns. Close it.
func New(options Options) (_ *Supervisor, err error) {
	if _, err := newFilter(options.Calls); err != nil {
		return nil, err
	}
	s := &Supervisor{self: options.Self, decide: options.Decide, done: make(chan struct{}), halted: make(chan struct{}),
		pidfd: -1}
	if s.dir, err = os.MkdirTemp("", "evenkeel-supervisor-"); err != nil {
		return nil, fmt.Errorf("make directory of supervisor: %w", err)
	}
	if err := s.start(options.Calls); err != nil {
		return nil, errors.Join(err, os.RemoveAll(s.dir))
	}
	return s, nil
}

// start starts the tracer. It is a process of its own: in the one that started the supervised process, a wait(2) for
// that would take the reports that are meant for its tracer.
func (s *Supervisor) start(calls []string) error {
	args := append(slices.Clone(s.self), "trace", s.socket(), strings.Join(calls, ","))
	s.tracer = exec.Command(args[0], args[1:]...)
	s.tracer.SysProcAttr = &unix.SysProcAttr{Setsid: true} // it must see this process end first
	s.tracer.Stderr = os.Stderr
	reports, err := s.tracer.StdoutPipe()
	if err != nil {
		return fmt.Errorf("start tracer: %w", err)
	}
	if s.pipe, err = s.tracer.StdinPipe(); err != nil {
		return fmt.Errorf("start tracer: %w", err)
	}
	s.orders = json.NewEncoder(s.pipe)
	if err := s.tracer.Start(); err != nil {
		return fmt.Errorf("start tracer: %w", err)
	}
	decoder := json.NewDecoder(reports)
	var first report
	err = decoder.Decode(&first)
	if err == nil && first.Error != "" {
		err = errors.New(first.Error)
	}
	if err != nil {
		s.pipe.Close()
		return errors.Join(fmt.Errorf("start tracer: %w", err), s.tracer.Wait())
	}
	if err := s.orders.Encode(order{Watch: s.decide == nil}); err != nil {
		s.pipe.Close()
		return errors.Join(fmt.Errorf("start tracer: %w", err), s.tracer.Wait())
	}
	go func() {
		defer close(s.done)
		err := s.follow(decoder)
		s.pipe.Close() // it ends with that at the latest
		if waited := s.tracer.Wait(); err == nil {
			err = waited
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.err = err
	}()
	return nil
}

// follow reads reports to the last one.
func (s *Supervisor) follow(reports *json.Decoder) (err error) {
	for {
		var r report
		if err := reports.Decode(&r); err != nil {
			return fmt.Errorf("read from tracer: %w", err)
		}
		s.mu.Lock()
		if r.PID != 0 {
			s.pid = r.PID
			// ESRCH: it has ended; then there is nothing to wait for.
			if s.pidfd, err = unix.PidfdOpen(r.PID, 0); err != nil {
				s.pidfd = -1
			}
		}
		switch {
		case r.Halted:
			select {
			case <-s.halted:
			default:
				close(s.halted)
			}
		case r.Call != nil:
			if r.Call.Number > len(s.calls) {
				s.calls = append(s.calls, *r.Call)
			}
			s.calls[r.Call.Number-1] = *r.Call
		case r.Ended:
			s.status = unix.WaitStatus(r.Status)
		}
		s.mu.Unlock()
		if r.Error != "" {
			return errors.New(r.Error)
		}
		if r.Ended {
			return nil
		}
		if r.Call == nil {
			continue
		}
		if s.decide == nil {
			continue
		}
		action := s.decide(*r.Call, r.When)
		if err := s.answer(*r.Call, r.When, action); err != nil {
			return err
		}
	}
}

func (s *Supervisor) answer(c Call, when When, action Action) error {
	if action.kind == actionRefuse && when == After {
		return fmt.Errorf("refuse %v: it is done already", c)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if action.kind != actionGo {
		s.acted = &Moment{c, when, action}
	}
	if err := s.orders.Encode(order{Kind: action.kind, Errno: action.errno}); err != nil {
		return fmt.Errorf("write to tracer: %w", err)
	}
	return nil
}

func (s *Supervisor) socket() string { return filepath.Join(s.dir, "socket") }

// Wrap returns the command line that runs a command under this supervisor. It is for one process.
func (s *Supervisor) Wrap(command ...string) []string {
	return append(append(slices.Clone(s.self), "shim", s.socket()), command...)
}

// Wait returns how the process has ended, or the context's error.
func (s *Supervisor) Wait(ctx context.Context) (unix.WaitStatus, error) {
	select {
	case <-s.done:
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.status, s.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// Done is closed once the process has ended: Wait returns at once then.
func (s *Supervisor) Done() <-chan struct{} { return s.done }

// Halted is closed once the process has been stopped or a thread of it wedged.
func (s *Supervisor) Halted() <-chan struct{} { return s.halted }

// Resume lets a process go on that was stopped or wedged. If it has ended, nothing happens.
func (s *Supervisor) Resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.orders.Encode(order{Resume: true}) // a tracer that is gone has nothing to resume
}

// Calls returns the watched calls that were let through or refused up to now, in order.
func (s *Supervisor) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

// Acted returns the last moment at which something was done to the process, nil if there was none.
func (s *Supervisor) Acted() *Moment {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.acted == nil {
		return nil
	}
	m := *s.acted
	return &m
}

// PID returns the process, 0 before there is one.
func (s *Supervisor) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pid
}

// Close ends the supervision, and the process with it: the filter would answer its watched calls with ENOSYS. It returns
// when the process has ended with all of its threads.
func (s *Supervisor) Close() error {
	s.mu.Lock()
	s.pipe.Close() // the tracer ends, and the kernel ends what it traces
	s.mu.Unlock()
	<-s.done
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pidfd >= 0 {
		for {
			_, err := unix.Poll([]unix.PollFd{{Fd: int32(s.pidfd), Events: unix.POLLIN}}, -1)
			if !errors.Is(err, unix.EINTR) {
				break
			}
		}
		unix.Close(s.pidfd)
		s.pidfd = -1
	}
	return os.RemoveAll(s.dir)
}
