// SPDX-License-Identifier: Apache-2.0

package netsim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"golang.org/x/sync/errgroup"
)

// serverReady is what a server process writes to its file descriptor readyFD when all of its sockets listen.
const (
	serverReady = "ready\n"
	readyFD     = 3
)

// whoPrefix asks the UDP server to put the pod's name in front of its answer: "who? hello" is answered "web-0 hello".
var whoPrefix = []byte("who? ")

// Serve runs the servers of a pod until the context ends: "http :8080" answers any HTTP/1.1 request with a JSON object
// {pod, remote, path}, "tcp :9000" echoes what it reads, "udp :9001" echoes datagrams. Sockets are dual-stack: an IPv4
// client shows as a v4-mapped address. ready, if not nil, gets a line once everything listens, and is closed.
func Serve(ctx context.Context, pod string, servers []string, ready io.WriteCloser) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, text := range servers {
		s, err := parseServer(text)
		if err != nil {
			return err
		}
		serve, err := s.listen(ctx, pod)
		if err != nil {
			return fmt.Errorf("serve %s in pod %s: %w", text, pod, err)
		}
		group.Go(func() error {
			if err := serve(); err != nil && ctx.Err() == nil {
				return fmt.Errorf("serve %s in pod %s: %w", text, pod, err)
			}
			return nil
		})
	}
	if ready != nil {
		_, err := io.WriteString(ready, serverReady)
		if err := errors.Join(err, ready.Close()); err != nil {
			return fmt.Errorf("report that pod %s is ready: %w", pod, err)
		}
	}
	group.Go(func() error { <-ctx.Done(); return nil }) // a pod without servers is there, too
	return group.Wait()
}

// ReadyFile is the file descriptor that whoever started a server process waits on, nil if there is none.
func ReadyFile() io.WriteCloser {
	file := os.NewFile(readyFD, "ready")
	if file == nil {
		return nil
	}
	if info, err := file.Stat(); err != nil || info.Mode()&os.ModeNamedPipe == 0 {
		return nil
	}
	return file
}

// listen opens the socket and returns what serves it until the context ends.
func (s serverSpec) listen(ctx context.Context, pod string) (serve func() error, err error) {
	address := fmt.Sprintf("[::]:%d", s.port)
	var config net.ListenConfig
	if s.protocol == "udp" {
		conn, err := config.ListenPacket(ctx, "udp", address)
		if err != nil {
			return nil, err
		}
		context.AfterFunc(ctx, func() { conn.Close() })
		return func() error { return echoDatagrams(conn, pod) }, nil
	}
	listener, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if s.protocol == "http" {
		server := &http.Server{Handler: answer(pod), ReadHeaderTimeout: time.Minute}
		context.AfterFunc(ctx, func() { server.Close() })
		return func() error { return server.Serve(listener) }, nil
	}
	context.AfterFunc(ctx, func() { listener.Close() })
	return func() error { return echoStreams(ctx, listener) }, nil
}

func answer(pod string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		// An error means that the client has gone; there is nobody to tell.
		_ = json.NewEncoder(w).Encode(map[string]string{"pod": pod, "remote": r.RemoteAddr, "path": r.URL.Path})
	}
}

// echoStreams returns when the listener is closed and all of its connections are.
func echoStreams(ctx context.Context, listener net.Listener) error {
	var group errgroup.Group
	for {
		conn, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return group.Wait()
		}
		if err != nil {
			return errors.Join(err, group.Wait())
		}
		group.Go(func() error {
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			defer stop()
			defer conn.Close()
			// Read and write rather than io.Copy: that would splice, and the bytes would never be the server's.
			buffer := make([]byte, 64<<10)
			for {
				n, err := conn.Read(buffer)
				if n > 0 {
					if _, err := conn.Write(buffer[:n]); err != nil {
						return nil //nolint:nilerr // the client has gone
					}
				}
				if err != nil {
					return nil //nolint:nilerr // the client has gone
				}
			}
		})
	}
}

func echoDatagrams(conn net.PacketConn, pod string) error {
	buffer := make([]byte, 64<<10)
	for {
		n, from, err := conn.ReadFrom(buffer)
		if err != nil {
			return err
		}
		reply := buffer[:n]
		if rest, asked := bytes.CutPrefix(reply, whoPrefix); asked {
			reply = append([]byte(pod+" "), rest...)
		}
		if _, err := conn.WriteTo(reply, from); errors.Is(err, net.ErrClosed) {
			return err
		} // any other error is of one datagram: UDP may lose it
	}
}
