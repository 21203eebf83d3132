// SPDX-License-Identifier: Apache-2.0

package ambient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protowire"
)

// Fields of the messages of ZDS, by which ztunnel gets the namespaces of a node's pods (proto/zds.proto of ztunnel, which
// is a dozen fields: no generated code for that).
const (
	requestAdd          = 1 // of WorkloadRequest
	requestSnapshotSent = 3
	addUID              = 1 // of AddWorkload
	addInfo             = 2
	infoName            = 1 // of WorkloadInfo
	infoNamespace       = 2
	infoServiceAccount  = 3
	responseAck         = 1 // of WorkloadResponse
	ackError            = 1 // of Ack
)

// answerTime is how long a ztunnel may take for one message.
const answerTime = 20 * time.Second

// Handover says what ServeZDS serves.
type Handover struct {
	// Config is the file of the node's Config; it is read anew for each ztunnel that comes.
	Config string
	// Socket is the unix socket that ztunnels dial (INPOD_UDS).
	Socket string
	// Notify is a socket that is told READY=1 (sd_notify(3)) when a ztunnel has taken all pods.
	Notify string
	Log    *slog.Logger
}

// ServeZDS gives each ztunnel that comes the namespaces of all pods of the node, in place of Istio's CNI agent, until
// the context ends.
func ServeZDS(ctx context.Context, h Handover) error {
	if err := os.RemoveAll(h.Socket); err != nil {
		return fmt.Errorf("remove old socket: %w", err)
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: h.Socket, Net: "unixpacket"})
	if err != nil {
		return fmt.Errorf("listen for ztunnel: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	h.Log.Info("waiting for ztunnel", "socket", h.Socket)
	var open sync.WaitGroup
	defer open.Wait()
	for {
		conn, err := l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept ztunnel: %w", err)
		}
		open.Go(func() {
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			defer stop()
			defer conn.Close()
			if err := h.handOver(conn); err != nil {
				h.Log.Warn("ztunnel did not take the pods", "error", err)
				return
			}
			_, _ = conn.Read(make([]byte, 1)) // until it ends: to lose the connection makes it come again
		})
	}
}

// handOver sends all pods and waits until each is taken.
func (h *Handover) handOver(conn *net.UnixConn) error {
	config, err := ReadConfig(h.Config)
	if err != nil {
		return err
	}
	if err := receive(conn, func([]byte) error { return nil }); err != nil { // ZdsHello
		return err
	}
	for i := range config.Pods {
		p := &config.Pods[i]
		if err := p.handOver(conn); err != nil {
			return fmt.Errorf("hand over pod %s/%s: %w", p.Namespace, p.Name, err)
		}
	}
	if err := ask(conn, message(requestSnapshotSent, nil), nil); err != nil {
		return fmt.Errorf("end of snapshot: %w", err)
	}
	h.Log.Info("ztunnel has taken all pods", "pods", len(config.Pods))
	return notify(h.Notify)
}

// handOver sends a pod with its namespace.
func (p *Pod) handOver(conn *net.UnixConn) error {
	netns, err := openNamespace(p.Netns)
	if err != nil {
		return err
	}
	info := join(text(infoName, p.Name), text(infoNamespace, p.Namespace), text(infoServiceAccount, p.ServiceAccount))
	add := join(text(addUID, p.uid()), message(addInfo, info))
	err = ask(conn, message(requestAdd, add), unix.UnixRights(netns.fd))
	return errors.Join(err, netns.close())
}

// uid names a pod to ztunnel. A namespace that was made anew is another pod, as it would be in a cluster.
func (p *Pod) uid() string { return fmt.Sprintf("%s/%s/%d", p.Namespace, p.Name, p.Inode) }

// ask sends a WorkloadRequest and waits for its answer.
func ask(conn *net.UnixConn, request, rights []byte) error {
	if _, _, err := conn.WriteMsgUnix(request, rights, nil); err != nil {
		return err
	}
	return receive(conn, checkAck)
}

// receive reads a message.
func receive(conn *net.UnixConn, check func([]byte) error) error {
	if err := conn.SetReadDeadline(time.Now().Add(answerTime)); err != nil {
		return err
	}
	buffer := make([]byte, 4096)
	n, err := conn.Read(buffer)
	if err == nil && n == 0 {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("wait for ztunnel: %w", err)
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	return check(buffer[:n])
}

// checkAck returns the error that a WorkloadResponse has.
func checkAck(b []byte) error {
	ack, found, err := field(b, responseAck)
	if err != nil {
		return err
	}
	if !found {
		return errors.New("ztunnel's answer is no Ack")
	}
	reason, _, err := field(ack, ackError)
	if err == nil && len(reason) > 0 {
		err = fmt.Errorf("ztunnel refuses: %s", reason)
	}
	return err
}

// field returns the first bytes field of a number in a message.
func field(b []byte, number protowire.Number) (value []byte, found bool, err error) {
	for len(b) > 0 {
		got, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil, false, fmt.Errorf("parse answer of ztunnel: %w", protowire.ParseError(n))
		}
		b = b[n:]
		if got == number && kind == protowire.BytesType {
			value, n := protowire.ConsumeBytes(b)
			if n < 0 {
				return nil, false, fmt.Errorf("parse answer of ztunnel: %w", protowire.ParseError(n))
			}
			return value, true, nil
		}
		if n = protowire.ConsumeFieldValue(got, kind, b); n < 0 {
			return nil, false, fmt.Errorf("parse answer of ztunnel: %w", protowire.ParseError(n))
		}
		b = b[n:]
	}
	return nil, false, nil
}

func message(number protowire.Number, body []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), body)
}

func text(number protowire.Number, s string) []byte { return message(number, []byte(s)) }

func join(parts ...[]byte) (all []byte) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}
