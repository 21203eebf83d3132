// SPDX-License-Identifier: Apache-2.0

// Package admin answers questions about a running agent over a socket of the node: HTTP, read-only, for root and for
// the agent's own user. The agent serves it; the commands status, dump and explain are its clients. What it answers are
// the documents of package report. It never changes anything.
package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/occupant"
)

// DefaultSocket is where the agent of a node answers.
const DefaultSocket = "/run/evenkeel/admin.sock"

// maxSocketPath is the room in struct sockaddr_un (unix(7)), without the NUL.
const maxSocketPath = 107

// InUseError says that somebody listens at the path of a socket.
type InUseError struct {
	By occupant.Process // whoever made the socket; the zero value if the kernel does not say
}

func (e *InUseError) Error() string {
	return fmt.Sprintf("%s listens there: %sgive this agent a path of its own with --admin", e.By, e.By.Or())
}

// Listen makes the socket, mode 0600, in a directory that it makes as well if need be, mode 0700. A socket that nobody
// listens to any more is replaced. The file goes when the listener is closed. It returns an [InUseError] if somebody
// answers there.
func Listen(path string) (net.Listener, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("listen at %s: the path of a socket has at most %d bytes: choose a shorter one with --admin",
			path, maxSocketPath)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("listen at %s: %w", path, err)
	}
	if err := clear(path); err != nil {
		return nil, fmt.Errorf("listen at %s: %w", path, err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen at %s: %w", path, err)
	}
	// Whoever connects before this is asked who he is all the same.
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("listen at %s: %w", path, err)
	}
	return l, nil
}

// clear removes a socket that is left of an agent that was killed.
func clear(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSocket == 0 {
		return errors.New("there is something that is not a socket: remove it, or choose another path with --admin")
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		defer conn.Close()
		made := &InUseError{}
		if found := peerOf(conn); found != nil {
			made.By = occupant.Of(int(found.Pid))
		}
		return made
	}
	if errors.Is(err, unix.EAGAIN) { // so many wait already
		return &InUseError{}
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("see whether another agent answers there: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// credentials is the key of the context of a request for *unix.Ucred, nil if the kernel did not tell.
type credentials struct{}

// withPeer notes who has connected.
func withPeer(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, credentials{}, peerOf(conn))
}

// peerOf is who is at the other end, nil if the kernel does not tell: whoever has connected, or has begun to listen.
func peerOf(conn net.Conn) (peer *unix.Ucred) {
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return nil
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return nil
	}
	_ = raw.Control(func(fd uintptr) { // an error leaves peer nil, which is refused
		if found, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			peer = found
		}
	})
	return peer
}

// allowed reports whether a request comes from root or from the user of this process.
func allowed(ctx context.Context) bool {
	peer, _ := ctx.Value(credentials{}).(*unix.Ucred)
	return peer != nil && (peer.Uid == 0 || int(peer.Uid) == os.Geteuid())
}
