// SPDX-License-Identifier: Apache-2.0

package ambient

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// DefaultDrain is how long connections may go on after the proxy was told to end (ztunnel's default, too).
const DefaultDrain = 5 * time.Second

// Options are a proxy's.
type Options struct {
	// Config is the file of its Config.
	Config string
	// Plaintext sends connections to other pods as they are, without a tunnel.
	Plaintext bool
	// Drain is how long connections go on once Run's context has ended.
	Drain time.Duration
	// Notify is the socket that is told READY=1 (sd_notify(3)), or empty.
	Notify string
	Log    *slog.Logger
}

// held is a pod whose connections the proxy holds.
type held struct {
	pod         *Pod
	netns       *namespace
	certificate *tls.Certificate
	authority   *Authority
	directory   *directory
	plaintext   bool
	count       *counter
	log         *slog.Logger
	// outgoing, incoming and encrypted are the listeners in its namespace.
	outgoing, incoming, encrypted *net.TCPListener
}

// Run holds the connections of a node's pods until the context ends. Then it accepts no more, and returns when all are
// closed or Options.Drain has passed, whichever comes first; what is left ends with the process.
func Run(ctx context.Context, o Options) error {
	config, err := ReadConfig(o.Config)
	if err != nil {
		return err
	}
	authority, err := ReadAuthority(config.Authority)
	if err != nil {
		return err
	}
	count := &counter{}
	var pods []*held
	defer func() {
		for _, p := range pods {
			p.close()
		}
	}()
	d := newDirectory(config)
	for i := range config.Pods {
		p := &held{pod: &config.Pods[i], authority: authority, directory: d, plaintext: o.Plaintext, count: count, log: o.Log}
		pods = append(pods, p)
		if err := p.listen(ctx); err != nil {
			return fmt.Errorf("hold connections of pod %s/%s: %w", p.pod.Namespace, p.pod.Name, err)
		}
	}
	// Connections outlive ctx; that a listener fails ends it.
	serving := context.WithoutCancel(ctx)
	group, ctx := errgroup.WithContext(ctx)
	for _, p := range pods {
		group.Go(func() error { p.accept(serving, p.outgoing, p.outbound); return nil })
		group.Go(func() error { p.accept(serving, p.incoming, p.inbound); return nil })
		group.Go(p.serveTunnels)
	}
	if err := notify(o.Notify); err != nil {
		return err
	}
	o.Log.Info("ready", "node", config.Node, "pods", len(pods), "plaintext", o.Plaintext)
	<-ctx.Done()
	for _, p := range pods {
		p.stop()
	}
	if err := group.Wait(); err != nil {
		return err
	}
	left := count.idle(o.Drain)
	o.Log.Info("ended", "node", config.Node, "cut", left)
	return nil
}

// listen opens what the pod's connections are redirected to.
func (p *held) listen(ctx context.Context) (err error) {
	if p.netns, err = openNamespace(p.pod.Netns); err != nil {
		return err
	}
	var s unix.Stat_t
	if err := unix.Fstat(p.netns.fd, &s); err != nil {
		return fmt.Errorf("look at %s: %w", p.pod.Netns, err)
	}
	if s.Ino != p.pod.Inode {
		return fmt.Errorf("%s is another namespace by now", p.pod.Netns)
	}
	if p.certificate, err = p.authority.Issue(p.pod.Identity()); err != nil {
		return err
	}
	for port, listener := range map[uint16]**net.TCPListener{
		outboundPort: &p.outgoing, inboundPort: &p.incoming, encryptedPort: &p.encrypted,
	} {
		if *listener, err = p.netns.listen(ctx, port); err != nil {
			return fmt.Errorf("listen on port %d: %w", port, err)
		}
	}
	return nil
}

// stop closes the listeners.
func (p *held) stop() {
	for _, l := range []*net.TCPListener{p.outgoing, p.incoming, p.encrypted} {
		if l != nil {
			_ = l.Close() // closed already
		}
	}
}

func (p *held) close() {
	p.stop()
	if p.netns != nil {
		_ = p.netns.close() // the process ends
	}
}

// acceptAgain is how long accept waits when there are no file descriptors left, or the like.
const acceptAgain = 10 * time.Millisecond

// accept hands connections to handle, each in a goroutine, until the listener is closed.
func (p *held) accept(ctx context.Context, l *net.TCPListener, handle func(context.Context, *net.TCPConn) error) {
	again := time.NewTimer(0)
	defer again.Stop()
	for {
		conn, err := l.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			p.log.Debug("no connection accepted", "pod", p.pod.Name, "error", err)
			again.Reset(acceptAgain)
			<-again.C
			continue
		}
		end := p.count.begin()
		go func() {
			defer end()
			from := conn.RemoteAddr()
			if err := handle(ctx, conn); err != nil {
				p.log.Debug("connection failed", "pod", p.pod.Name, "from", from, "error", err)
			}
		}()
	}
}

// serveTunnels is accept for mutual TLS.
func (p *held) serveTunnels() error {
	server := &http.Server{ // without timeouts: to be slow is no reason to close
		Protocols: http2(),
		Handler:   http.HandlerFunc(p.terminate),
		TLSConfig: p.authority.server(p.certificate),
		ErrorLog:  log.New(io.Discard, "", 0), // clients that come without a certificate
	}
	err := server.ServeTLS(p.encrypted, "", "")
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return fmt.Errorf("serve tunnels of pod %s/%s: %w", p.pod.Namespace, p.pod.Name, err)
}

// counter counts connections.
type counter struct {
	mu    sync.Mutex
	n     int
	empty chan struct{} // not nil while idle waits
}

// begin counts one more; the function that it returns counts it off.
func (c *counter) begin() (end func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.n--; c.n == 0 && c.empty != nil {
			close(c.empty)
			c.empty = nil
		}
	}
}

// idle returns when there is none or the time has passed, with the number that is left.
func (c *counter) idle(limit time.Duration) int {
	c.mu.Lock()
	if c.n == 0 {
		c.mu.Unlock()
		return 0
	}
	empty := make(chan struct{})
	c.empty = empty
	c.mu.Unlock()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-empty:
		return 0
	case <-timer.C:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

// notify says that the proxy is ready.
func notify(socket string) error {
	if socket == "" {
		return nil
	}
	conn, err := net.Dial("unixgram", socket)
	if err == nil {
		_, err = conn.Write([]byte("READY=1\n"))
		err = errors.Join(err, conn.Close())
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) { // whoever waited for it has gone
		return fmt.Errorf("say that the proxy is ready: %w", err)
	}
	return nil
}
