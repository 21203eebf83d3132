// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/admin"
	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/occupant"
	"github.com/evenkeel/evenkeel/upgrade"
)

// sockets are what the agent answers at.
type sockets struct {
	admin, metrics net.Listener // metrics is nil if there are to be none
}

// beforeTakeOver finds the agent that is to be killed, nil if there is none, and opens what that one does not hold
// itself, so that it does not die for one that cannot run.
func (s *sockets) beforeTakeOver(ctx context.Context, o Options) (*upgrade.Holder, error) {
	incumbent, err := upgrade.FindHolder(o.Dir)
	if err != nil || incumbent == nil {
		return nil, err
	}
	if err := s.listen(ctx, o, incumbent.PID); err != nil {
		return nil, fmt.Errorf("nothing was taken over from pid %d: %w", incumbent.PID, err)
	}
	return incumbent, nil
}

// listen opens those that are not open yet. With an incumbent, the process that is to be killed, it leaves out what that
// one holds and returns nil; what another holds is an error as ever.
func (s *sockets) listen(ctx context.Context, o Options, incumbent int) (err error) {
	if s.admin == nil {
		s.admin, err = admin.Listen(o.Admin)
		var inUse *admin.InUseError
		if errors.As(err, &inUse) && incumbent != 0 && (inUse.By.PID == incumbent || inUse.By.PID == 0) {
			err = nil
		}
		if err != nil {
			return err
		}
	}
	if s.metrics != nil || o.Metrics == "" {
		return nil
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", o.Metrics)
	if err == nil {
		s.metrics = l
		return nil
	}
	const instead = "choose another address with --metrics, or none with --metrics="
	if !errors.Is(err, unix.EADDRINUSE) {
		return fmt.Errorf("serve metrics: %w: %s", err, instead)
	}
	its, other, looked := whoListens(incumbent, o.Metrics)
	switch {
	case looked != nil:
		return fmt.Errorf("serve metrics: %w: %s", errors.Join(err, looked), instead)
	case its:
		return nil
	}
	return fmt.Errorf("serve metrics: %w by %s: %s%s", err, other, other.Or(), instead)
}

// probe makes sure that those that are not open yet can be opened, and leaves them closed: clients of an agent that does
// not answer yet go on without one at once, and would wait for one that listens.
func (s *sockets) probe(ctx context.Context, o Options) error {
	p := *s
	err := p.listen(ctx, o, 0)
	if p.admin == s.admin {
		p.admin = nil
	}
	if p.metrics == s.metrics {
		p.metrics = nil
	}
	p.close()
	return err
}

func (s *sockets) close() {
	for _, l := range []net.Listener{s.admin, s.metrics} {
		if l != nil {
			l.Close()
		}
	}
}

// whoListens finds who has the sockets that are in the way of listening at an address: all of them one process, or else
// who has one that it has not.
func whoListens(pid int, address string) (its bool, other occupant.Process, err error) {
	at, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return false, other, err
	}
	sockets, err := occupant.Listeners(at)
	if err != nil {
		return false, other, err
	}
	var mine map[uint32]bool
	if pid != 0 {
		if mine, err = occupant.Sockets(pid); err != nil {
			return false, other, err
		}
	}
	for _, socket := range sockets {
		if !mine[socket] {
			return false, occupant.With(socket), nil
		}
	}
	return len(sockets) > 0, other, nil
}
