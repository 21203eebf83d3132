// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// tracer follows the threads of one process, and those of its children.
//
// At any time at most one watched call is under way: a thread that wants another waits in front of it. So when the
// process is ended at a moment of a call, no other call is half done, and those that wait will never be: the kernel
// skips a marked call whose thread has been killed meanwhile (kernel/seccomp.c, __seccomp_filter).
type tracer struct {
	reports    *json.Encoder
	answers    chan order
	resume     chan struct{}
	watch      bool // nobody answers
	pid, pidfd int
	threads    map[int]int // processes by thread, as far as they have made watched calls
	calls      int         // how many were let through
	running    bool        // the shim has become the command: what it does counts
	waiting    []*pending
	current    *pending // under way in the kernel
	held       []*pending
	stopped    bool
	killed     bool
	status     unix.WaitStatus
}

// pending is a watched call that has not returned, and where it stands.
type pending struct {
	tid  int
	call Call
	when When // held at
	// decided tells that it was held before: it is not asked about again.
	decided bool
}

// drain handles what threads have to report, until the process has ended or, while one of its threads is held, until
// there is nothing more to handle.
func (t *tracer) drain() (ended bool, err error) {
	for {
		var status unix.WaitStatus
		options := unix.WALL | unix.WNOTHREAD
		if len(t.held) > 0 { // and may be resumed
			options |= unix.WNOHANG
		}
		// Only what this thread traces: other children of this process are others'.
		tid, err := unix.Wait4(-1, &status, options, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ECHILD):
			return true, nil // nothing is left to trace
		case err != nil:
			return false, fmt.Errorf("wait for process %d: %w", t.pid, err)
		case tid == 0:
			return false, nil
		}
		if status.Exited() || status.Signaled() {
			if tid == t.pid {
				t.status = status
				return true, nil
			}
			if err := t.forget(tid); err != nil {
				return false, err
			}
			continue
		}
		// A thread that was killed meanwhile answers ESRCH to anything; its end is reported next.
		if err := t.handle(tid, status); err != nil && !errors.Is(err, unix.ESRCH) {
			return false, err
		}
	}
}

// handle lets a thread that has stopped go on, or not.
func (t *tracer) handle(tid int, status unix.WaitStatus) error {
	event, sig := int(status)>>16, int(status.StopSignal())
	switch event {
	case unix.PTRACE_EVENT_SECCOMP:
		return t.enter(tid)
	case unix.PTRACE_EVENT_EXEC:
		clear(t.threads) // the one that called has the number of the first now
		t.running = t.running || tid == t.pid
		return unix.PtraceCont(tid, 0)
	case unix.PTRACE_EVENT_STOP:
		if sig != int(unix.SIGTRAP) { // a stop of the whole process: it lasts until SIGCONT
			_, err := ptrace(unix.PTRACE_LISTEN, tid, 0, 0)
			return err
		}
		return unix.PtraceCont(tid, 0)
	case 0:
		if sig == int(unix.SIGTRAP)|0x80 {
			return t.leave(tid)
		}
		return unix.PtraceCont(tid, sig) // a signal on its way
	}
	return unix.PtraceCont(tid, 0) // a new thread or child, which reports by itself
}

// enter takes note of a thread that is about to make a watched call.
func (t *tracer) enter(tid int) error {
	if !t.running || !t.own(tid) { // a child's calls are not the process's
		return unix.PtraceCont(tid, 0)
	}
	c, err := readCall(tid)
	if err != nil {
		return err
	}
	if c.op != callSeccomp {
		return fmt.Errorf("thread %d stopped for seccomp reports operation %d", tid, c.op)
	}
	p := &pending{tid: tid, call: Call{Thread: tid}}
	p.call.Name, p.call.Argument = tracee{tid, t.pidfd}.describe(c.number, c.args)
	t.waiting = append(t.waiting, p)
	return t.next()
}

// own tells whether a thread is the process's.
func (t *tracer) own(tid int) bool {
	of, known := t.threads[tid]
	if !known {
		of = processOf(tid)
		t.threads[tid] = of
	}
	return of == t.pid
}

// next starts a call that waits if none is under way.
func (t *tracer) next() error {
	for t.current == nil && len(t.waiting) > 0 && !t.stopped && !t.killed {
		p := t.waiting[0]
		t.waiting = t.waiting[1:]
		t.current = p
		var err error
		if p.decided {
			err = t.proceed(p, Before)
		} else {
			p.decided = true
			t.calls++
			p.call.Number = t.calls
			err = t.act(p, Before)
		}
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}

// leave takes note of a watched call that is done.
func (t *tracer) leave(tid int) error {
	p := t.current
	if p == nil || p.tid != tid {
		return unix.PtraceCont(tid, 0)
	}
	c, err := readCall(tid)
	if err != nil {
		return err
	}
	if c.op != callExit {
		return fmt.Errorf("thread %d after call %d reports operation %d", tid, p.call.Number, c.op)
	}
	p.call.Done, p.call.Result = true, int64(c.number)
	if p.call.Result < 0 {
		p.call.Errno, p.call.Result = unix.Errno(-p.call.Result), -1
	}
	return t.act(p, After)
}

// act asks what is to be done at a moment of the current call, and does it.
func (t *tracer) act(p *pending, when When) error {
	if err := t.reports.Encode(report{Call: &p.call, When: when}); err != nil {
		return err
	}
	var action order
	if !t.watch {
		action = <-t.answers
	}
	switch action.Kind {
	case actionKill:
		t.killed = true
		return t.signal(unix.SIGKILL)
	case actionStop, actionWedge:
		p.when = when
		t.held = append(t.held, p)
		t.current = nil
		if action.Kind == actionStop {
			t.stopped = true
			if err := t.signal(unix.SIGSTOP); err != nil {
				return err
			}
		}
		if err := t.reports.Encode(report{Halted: true}); err != nil {
			return err
		}
		return t.next()
	case actionRefuse:
		p.call.Refused = true
		if err := refuse(p.tid, action.Errno); err != nil {
			return err
		}
	}
	return t.proceed(p, when)
}

// proceed lets the current call go on from a moment.
func (t *tracer) proceed(p *pending, when When) error {
	if when == Before {
		return unix.PtraceSyscall(p.tid, 0) // to its end
	}
	t.current = nil
	return errors.Join(unix.PtraceCont(p.tid, 0), t.next())
}

// resumeHeld ends stops.
func (t *tracer) resumeHeld() error {
	if t.stopped {
		t.stopped = false
		if err := t.signal(unix.SIGCONT); err != nil {
			return err
		}
	}
	for _, p := range t.held {
		if p.when == After {
			if err := unix.PtraceCont(p.tid, 0); err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
			continue
		}
		t.waiting = slices.Insert(t.waiting, 0, p)
	}
	t.held = nil
	return t.next()
}

// forget drops what is known of a thread that has ended.
func (t *tracer) forget(tid int) error {
	delete(t.threads, tid)
	of := func(p *pending) bool { return p.tid == tid }
	t.waiting = slices.DeleteFunc(t.waiting, of)
	t.held = slices.DeleteFunc(t.held, of)
	if t.current != nil && of(t.current) {
		t.current = nil
	}
	return t.next()
}

func (t *tracer) signal(signal unix.Signal) error {
	err := unix.PidfdSendSignal(t.pidfd, signal, nil, 0)
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("send %v to process %d: %w", signal, t.pid, err)
	}
	return nil
}
