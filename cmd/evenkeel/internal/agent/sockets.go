// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/admin"
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
		if errors.As(err, &inUse) && incumbent != 0 && (inUse.PID == incumbent || inUse.PID == 0) {
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
	err = fmt.Errorf("serve metrics: %w: choose another address with --metrics, or none with --metrics=", err)
	if incumbent == 0 || !errors.Is(err, unix.EADDRINUSE) {
		return err
	}
	its, looked := listensAt(incumbent, o.Metrics)
	if looked != nil {
		return errors.Join(err, looked)
	}
	if !its {
		return err
	}
	return nil
}

func (s *sockets) close() {
	for _, l := range []net.Listener{s.admin, s.metrics} {
		if l != nil {
			l.Close()
		}
	}
}

// listensAt reports whether all sockets that are in the way of listening at an address are of one process.
func listensAt(pid int, address string) (bool, error) {
	want, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return false, err
	}
	all := len(want.IP) == 0 || want.IP.IsUnspecified()
	its, err := socketsOf(pid)
	if err != nil {
		return false, err
	}
	found := false
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		listed, err := netlink.SocketDiagTCP(family)
		if err != nil {
			return false, fmt.Errorf("list sockets: %w", err)
		}
		for _, l := range listed {
			at := l.ID.Source
			if l.State != netlink.TCP_LISTEN || int(l.ID.SourcePort) != want.Port ||
				!all && !at.IsUnspecified() && !at.Equal(want.IP) {
				continue
			}
			if !its[fmt.Sprintf("socket:[%d]", l.INode)] {
				return false, nil
			}
			found = true
		}
	}
	return found, nil
}

// socketsOf names the sockets of a process as /proc/PID/fd shows them (proc_pid_fd(5)).
func socketsOf(pid int) (map[string]bool, error) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list sockets of pid %d: %w", pid, err)
	}
	names := make(map[string]bool)
	for _, e := range entries {
		if name, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil { // or else it was closed meanwhile
			names[name] = true
		}
	}
	return names, nil
}
