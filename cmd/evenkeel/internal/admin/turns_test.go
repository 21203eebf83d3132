// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/bpf"
	"github.com/evenkeel/evenkeel/engine"
)

// A hundred clients ask for a long document at once and take none of it. Only so many are kept for them, which are given up
// after a time; who asks for something else is answered, and who asks for a long one as well is told to come again.
func TestClientsThatTakeNothing(t *testing.T) {
	const many = 4000
	v := newSizedView(t, bpf.Sizes{Services: 8, Endpoints: many, Workloads: 8, Affinities: 8, Peers: 8})
	c := oneService()
	s := c.Slices["default/web"]
	for i := range many - 1 {
		s.Endpoints = append(s.Endpoints, engine.Endpoint{
			Address: netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), Workload: fmt.Sprintf("default/web-%d", i), Weight: 1, Ready: true,
		})
	}
	if err := v.Engine.Apply(t.Context(), "test", c); err != nil {
		t.Fatal(err)
	}
	socket := serve(t, v, ready())
	var lazy []net.Conn
	for range 100 {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := fmt.Fprint(conn, "GET /v1/endpoints HTTP/1.1\r\nHost: agent\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		lazy = append(lazy, conn)
	}
	answers := map[string]int{}
	deadline := time.Now().Add(time.Minute)
	for _, conn := range lazy {
		line := make([]byte, len("HTTP/1.1 200"))
		if err := conn.SetReadDeadline(deadline); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, line); err != nil {
			t.Fatal(err)
		}
		answers[string(line)]++
	}
	if answers["HTTP/1.1 200"] != takers || answers["HTTP/1.1 503"] != len(lazy)-takers {
		t.Errorf("answers are %v, want %d documents", answers, takers)
	}
	client := NewClient(socket, v.Dir)
	defer client.Close()
	if _, err := client.Status(t.Context()); err != nil {
		t.Errorf("status: %v", err)
	}
	if _, err := client.Services(t.Context()); err == nil || errors.Is(err, ErrNobody) || !strings.Contains(err.Error(), "ask again") {
		t.Errorf("one more long document: %v", err)
	}
	for _, conn := range lazy {
		conn.Close()
	}
	if d, err := client.Endpoints(t.Context()); err != nil || len(d.Endpoints) != many {
		t.Errorf("when they have gone: %v", err)
	}
}
