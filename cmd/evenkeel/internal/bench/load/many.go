// SPDX-License-Identifier: Apache-2.0

package load

import (
	"errors"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// epoll waits for many sockets by one thread.
type epoll struct {
	fd     int
	events [128]unix.EpollEvent
}

func newEpoll() (*epoll, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create epoll: %w", err)
	}
	return &epoll{fd: fd}, nil
}

func (e *epoll) close() { closeSocket(e.fd) }

func (e *epoll) add(fd int, events uint32) error {
	event := unix.EpollEvent{Events: events, Fd: int32(fd)}
	_, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(e.fd), unix.EPOLL_CTL_ADD, uintptr(fd),
		uintptr(unsafe.Pointer(&event)), 0, 0)
	if errno != 0 {
		return fmt.Errorf("watch socket: %w", errno)
	}
	return nil
}

// wait returns what is ready, at the latest after so many milliseconds, -1 for never.
func (e *epoll) wait(timeout int) ([]unix.EpollEvent, error) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(e.fd), uintptr(unsafe.Pointer(&e.events)),
			uintptr(len(e.events)), uintptr(timeout), 0, 0)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return nil, fmt.Errorf("wait for sockets: %w", errno)
		}
		return e.events[:n], nil
	}
}

// stall is how long nothing may happen at all before a block has failed.
const stall = 5000 // milliseconds

// many keeps a number of connections under way, each for one request.
type many struct {
	epoll  *epoll
	to     target
	buffer [size]byte
	open   map[int]*attempt
	spare  []*attempt
}

// attempt is one connection.
type attempt struct {
	begun time.Time
	sent  bool
	got   int
}

func (c *client) connectMany(b Block) (Result, error) {
	e, err := newEpoll()
	if err != nil {
		return Result{}, err
	}
	defer e.close()
	m := &many{epoll: e, to: targetOf(b.To), open: make(map[int]*attempt, b.Connections)}
	defer func() {
		for fd := range m.open {
			closeSocket(fd)
		}
	}()
	w, now := &c.watch, time.Now()
	for range b.Connections {
		if err := m.begin(now); err != nil {
			return Result{}, err
		}
	}
	left, running := warm+b.Connections, false
	for {
		events, err := e.wait(stall)
		if err != nil {
			return Result{}, err
		}
		if len(events) == 0 {
			return Result{}, fmt.Errorf("%d connections made no progress in %d ms", len(m.open), stall)
		}
		for _, event := range events {
			done, err := m.advance(event)
			if err != nil {
				return Result{}, err
			}
			if done == nil {
				continue
			}
			if b.Handicap > 0 {
				waste(b.Handicap)
			}
			left--
			now = time.Now()
			if running {
				w.add(now.Sub(done.begun))
			}
			m.spare = append(m.spare, done)
			if err := m.begin(now); err != nil {
				return Result{}, err
			}
		}
		// The clock starts and stops between one set of answers and the next: in the middle of one the time that it took
		// would be counted, or not, with whatever part of it came before.
		if d := now.Sub(w.begin); running && d > b.Duration {
			return w.stop(d)
		}
		if !running && left <= 0 {
			if err := w.start(); err != nil {
				return Result{}, err
			}
			running = true
		}
	}
}

// begin dials once more.
func (m *many) begin(now time.Time) error {
	fd, err := socket(unix.SOCK_STREAM | unix.SOCK_NONBLOCK)
	if err != nil {
		return err
	}
	a := &attempt{}
	if n := len(m.spare); n > 0 {
		a, m.spare = m.spare[n-1], m.spare[:n-1]
	}
	*a = attempt{begun: now}
	m.open[fd] = a
	if err := resetOnClose(fd); err != nil {
		return err
	}
	if errno := connect(fd, &m.to); errno != 0 && errno != unix.EINPROGRESS {
		return fmt.Errorf("connect: %w", errno)
	}
	return m.epoll.add(fd, unix.EPOLLIN|unix.EPOLLOUT|unix.EPOLLET)
}

// advance goes on with a connection and returns it when it is done.
func (m *many) advance(event unix.EpollEvent) (*attempt, error) {
	fd := int(event.Fd)
	a := m.open[fd]
	if a == nil {
		return nil, errors.New("an event of a socket that is closed")
	}
	if !a.sent && event.Events&(unix.EPOLLOUT|unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		if n, errno := write(fd, &m.buffer, size); errno != 0 || n != size {
			return nil, fmt.Errorf("connect and write: %d bytes of %d: %w", n, size, errno)
		}
		a.sent = true
	}
	if !a.sent || event.Events&unix.EPOLLIN == 0 {
		return nil, nil
	}
	for a.got < size {
		n, errno := read(fd, &m.buffer)
		if errno == unix.EAGAIN {
			return nil, nil
		}
		if errno != 0 || n == 0 {
			return nil, fmt.Errorf("read: %d bytes of %d: %w", a.got, size, errno)
		}
		a.got += n
	}
	closeSocket(fd)
	delete(m.open, fd)
	return a, nil
}
