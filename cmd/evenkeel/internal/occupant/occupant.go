// SPDX-License-Identifier: Apache-2.0

// Package occupant finds out which process has what an agent needs, a socket or a port, so that whoever starts the agent
// is told whom to end.
package occupant

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Process is one that has something. The zero value is one that nobody knows: it is in another PID namespace.
type Process struct {
	PID     int
	Command string // as it was started, empty if that cannot be read
	Stopped bool   // by a signal: it has what it has, and does nothing with it
}

// Of describes the process with a number.
func Of(pid int) Process {
	p := Process{PID: pid}
	if line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil {
		p.Command = string(bytes.TrimRight(bytes.ReplaceAll(line, []byte{0}, []byte{' '}), " "))
	}
	if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil {
		p.Stopped = isStopped(string(text))
	}
	return p
}

// isStopped reads proc_pid_stat(5): the state follows the name, which may have anything in it.
func isStopped(stat string) bool {
	_, rest, _ := strings.Cut(stat[max(strings.LastIndexByte(stat, ')'), 0):], ") ")
	return strings.HasPrefix(rest, "T") || strings.HasPrefix(rest, "t")
}

// String is "pid 4711 (evenkeel agent --node n1)", or "stopped pid 4711 (evenkeel agent --node n1)".
func (p Process) String() string {
	if p.PID == 0 {
		return "a process that is not seen from here"
	}
	text := "pid " + strconv.Itoa(p.PID)
	if p.Command != "" {
		text += " (" + p.Command + ")"
	}
	if p.Stopped {
		text = "stopped " + text
	}
	return text
}

// Or is what to do about the process, to be followed by what else there is to do; nothing if it is at work.
func (p Process) Or() string {
	if !p.Stopped {
		return ""
	}
	return fmt.Sprintf("let it go on with 'kill -CONT %d', end it with 'kill -KILL %[1]d', or ", p.PID)
}

// With finds the process that has a socket.
func With(socket uint32) Process {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return Process{}
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if its, err := Sockets(pid); err == nil && its[socket] { // or else it has ended meanwhile
			return Of(pid)
		}
	}
	return Process{}
}

// Sockets returns the inodes of the sockets of a process, which are in the names of /proc/PID/fd (proc_pid_fd(5)).
func Sockets(pid int) (map[uint32]bool, error) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list sockets of pid %d: %w", pid, err)
	}
	inodes := make(map[uint32]bool)
	for _, e := range entries {
		name, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil {
			continue // it was closed meanwhile
		}
		text, ok := strings.CutPrefix(name, "socket:[")
		if !ok {
			continue
		}
		if inode, err := strconv.ParseUint(strings.TrimSuffix(text, "]"), 10, 32); err == nil {
			inodes[uint32(inode)] = true
		}
	}
	return inodes, nil
}

// Listeners returns the sockets of this network namespace that are in the way of listening at an address, ADDRESS:PORT.
func Listeners(address *net.TCPAddr) ([]uint32, error) {
	all := len(address.IP) == 0 || address.IP.IsUnspecified()
	var found []uint32
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		listed, err := netlink.SocketDiagTCP(family)
		if err != nil {
			return nil, fmt.Errorf("list sockets: %w", err)
		}
		for _, l := range listed {
			at := l.ID.Source
			if l.State == netlink.TCP_LISTEN && int(l.ID.SourcePort) == address.Port &&
				(all || at.IsUnspecified() || at.Equal(address.IP)) {
				found = append(found, l.INode)
			}
		}
	}
	return found, nil
}
