// SPDX-License-Identifier: Apache-2.0

package ambient

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const clientID, serverID = "spiffe://cluster.local/ns/default/sa/client", "spiffe://cluster.local/ns/default/sa/server"

func mustAuthority(t *testing.T) *Authority {
	t.Helper()
	a, err := NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func mustIssue(t *testing.T, a *Authority, id string) *tls.Certificate {
	t.Helper()
	c, err := a.Issue(id)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// serve runs a pod's server of tunnels on loopback, in the test's namespace, and an application that echoes.
func serve(t *testing.T, a *Authority) (tunnels, application netip.AddrPort) {
	t.Helper()
	app, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { // ends with the listener
		for {
			conn, err := app.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := &held{pod: &Pod{}, netns: &namespace{fd}, authority: a, certificate: mustIssue(t, a, serverID), count: &counter{},
		log: slog.New(slog.DiscardHandler)}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.encrypted = l.(*net.TCPListener)
	done := make(chan error, 1)
	go func() { done <- p.serveTunnels() }()
	t.Cleanup(func() {
		app.Close()
		p.stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := p.netns.close(); err != nil {
			t.Error(err)
		}
	})
	return plain(l.Addr()), plain(app.Addr())
}

func dialTunnel(t *testing.T, to netip.AddrPort, config *tls.Config, target netip.AddrPort) (*tunnel, error) {
	t.Helper()
	conn, err := net.Dial("tcp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	return connect(ctx, conn, config, target)
}

// A tunnel is there for the right two, and for nobody else.
func TestTunnelRefuses(t *testing.T) {
	needRoot(t) // for marks and foreign source addresses
	lab, foreign := mustAuthority(t), mustAuthority(t)
	server, app := serve(t, lab)
	client := mustIssue(t, lab, clientID)
	right := lab.client(client, serverID)
	// In TLS 1.3 a client learns only with its first request that it was refused.
	const refusedLater = "CONNECT 127.0.0.1"
	for _, c := range []struct {
		what   string
		config func() *tls.Config
		target netip.AddrPort
		want   string // in the error; empty: none
	}{
		{"the right one", func() *tls.Config { return right }, app, ""},
		{"another server than wanted", func() *tls.Config { return lab.client(client, clientID) }, app,
			"the peer is " + serverID},
		{"a server of another authority", func() *tls.Config { return foreign.client(client, serverID) }, app,
			"unknown authority"},
		{"a client of another authority", func() *tls.Config {
			return lab.client(mustIssue(t, foreign, clientID), serverID)
		}, app, refusedLater},
		{"a client of another trust domain", func() *tls.Config {
			return lab.client(mustIssue(t, lab, "spiffe://elsewhere/ns/default/sa/client"), serverID)
		}, app, refusedLater},
		{"a client without certificate", func() *tls.Config {
			config := right.Clone()
			config.Certificates = nil
			return config
		}, app, refusedLater},
		{"TLS 1.2", func() *tls.Config {
			config := right.Clone()
			config.MinVersion, config.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
			return config
		}, app, "protocol version"},
		{"an address that is not the server's", func() *tls.Config { return right },
			netip.MustParseAddrPort("127.0.0.2:80"), "400"},
		{"the proxy itself", func() *tls.Config { return right }, netip.AddrPortFrom(app.Addr(), outboundPort), "400"},
		{"a port that nobody listens on", func() *tls.Config { return right }, netip.AddrPortFrom(app.Addr(), 1), "503"},
	} {
		tunnel, err := dialTunnel(t, server, c.config(), c.target)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.what, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: the error is %v, and should have %q", c.what, err, c.want)
		}
		if tunnel != nil {
			closeTunnel(t, tunnel)
		}
	}
}

func closeTunnel(t *testing.T, tunnel *tunnel) {
	t.Helper()
	if err := tunnel.Close(); err != nil {
		t.Log(err)
	}
}

// What goes through a tunnel comes back, and the end of one direction leaves the other open.
func TestTunnelHalfClose(t *testing.T) {
	needRoot(t)
	lab := mustAuthority(t)
	server, app := serve(t, lab)
	tunnel, err := dialTunnel(t, server, lab.client(mustIssue(t, lab, clientID), serverID), app)
	if err != nil {
		t.Fatal(err)
	}
	defer closeTunnel(t, tunnel)
	sent := make([]byte, 1<<20)
	_, _ = rand.Read(sent) // never fails
	failed := make(chan error, 1)
	go func() {
		_, err := tunnel.Write(sent)
		if err == nil {
			err = tunnel.CloseWrite()
		}
		failed <- err
	}()
	got, err := io.ReadAll(tunnel) // until the echo has seen the end
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d of %d bytes came back: %v", len(got), len(sent), err)
	}
	if err := <-failed; err != nil {
		t.Error(err)
	}
}

// Only CONNECT is answered.
func TestTunnelAnswersNothingElse(t *testing.T) {
	lab := mustAuthority(t)
	server, _ := serve(t, lab)
	transport := &http.Transport{Protocols: http2(), TLSClientConfig: lab.client(mustIssue(t, lab, clientID), serverID)}
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport}).Get("https://" + server.String() + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusBadRequest {
		t.Errorf("GET: %s", response.Status)
	}
}

func TestAuthorityIsReadAsWritten(t *testing.T) {
	dir := t.TempDir()
	written := mustAuthority(t)
	if err := written.Write(dir); err != nil {
		t.Fatal(err)
	}
	read, err := ReadAuthority(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !read.certificate.Equal(written.certificate) || !read.key.Equal(written.key) {
		t.Error("another authority was read")
	}
}
