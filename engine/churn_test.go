// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/bpf"
)

// churn changes two services as fast as it can. One has endpoints below 10,000, the other above.
type churn struct {
	random  *rand.Rand
	serve   func(*Service, ...Endpoint)
	service *Service
	other   *Service
	current []int
	next    int
	removed map[int]int64 // when the change that removed an endpoint had been applied
}

func newChurn(serve func(*Service, ...Endpoint)) *churn {
	c := &churn{
		random: rand.New(rand.NewPCG(1, 2)), serve: serve, service: dns(), other: dns(),
		current: []int{1, 2, 3}, next: 4, removed: make(map[int]int64),
	}
	c.other.Name, c.other.Addresses = "kube-system/other", []netip.Addr{netip.MustParseAddr("10.96.0.9")}
	return c
}

func (c *churn) apply() {
	var all []Endpoint
	for _, n := range c.current {
		all = append(all, ready(n, 1)...)
	}
	c.serve(c.service, all...)
	c.serve(c.other, append(ready(10_001+c.next%5_000, 1), ready(20_001+c.next%5_000, 1)...)...)
}

// change adds, removes or replaces an endpoint, or makes the service another record.
func (c *churn) change() {
	at, gone := c.random.IntN(len(c.current)), 0
	switch dice := c.random.IntN(4); {
	case dice == 0 && len(c.current) < 40:
		c.current = append(c.current, c.next)
	case dice == 1 && len(c.current) > 1:
		gone = c.current[at]
		c.current = slices.Delete(c.current, at, at+1)
	case dice == 2:
		copied := *c.service
		copied.Affinity = time.Hour - copied.Affinity
		c.service = &copied
	default:
		gone, c.current[at] = c.current[at], c.next
	}
	c.next++
	c.apply()
	if gone != 0 {
		c.removed[gone] = monotonic()
	}
}

// Promise: while endpoints come and go as fast as they can, no connection is refused that has an endpoint, none gets to
// an endpoint of another service, and none to one that had gone before the connection began.
func TestConnectionsUnderChurn(t *testing.T) {
	p := mustPlane(t)
	e, serve := mustServe(t, p)
	c := newChurn(serve)
	c.apply()
	pod := p.mustPod(t, "web/client", podIP4, podIP6)
	stop := make(chan struct{})
	var writer errgroup.Group
	writer.Go(func() error {
		for c.next < 9_000 {
			select {
			case <-stop:
				return nil
			default:
				c.change()
			}
		}
		return nil
	})
	var answers []answer
	for range 60 {
		answers = append(answers, pod.do(order{Dial: dial4, Times: 500}))
	}
	close(stop)
	if err := writer.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, a := range answers {
		if a.Refused > 0 {
			t.Errorf("%d connections were refused", a.Refused)
		}
		for peer := range a.Peers {
			n := number(peer.Addr())
			if gone, ok := c.removed[n]; n >= 10_000 || ok && gone < a.Begin {
				t.Errorf("a connection begun at %d got to endpoint %d, of another service or gone at %d", a.Begin, n, gone)
			}
		}
	}
	if len(c.removed) < 10 {
		t.Fatalf("only %d endpoints were removed: the test proves nothing", len(c.removed))
	}
	t.Logf("%d endpoints removed under 30,000 connections; %+v", len(c.removed), e.Stats().Writes)
}

// Promise: a connected UDP socket whose endpoint is gone is ended, in every namespace that can be entered; another
// lives, and so does one that is connected no longer, or to something else. A namespace that is gone, or is not the one
// that was enrolled, holds nothing up.
func TestUDPSocketsOfGoneEndpointsEnd(t *testing.T) {
	p := mustPlane(t)
	e, serve := mustServe(t, p)
	var logged lines
	e.opts.Log = slog.New(slog.NewTextHandler(&logged, nil))
	serve(dns(), ready(1, 1)...)
	loser := p.mustPod(t, "web/loser", podIP4, podIP6)
	loser.do(order{Dial: dial4, Hold: true})
	quitter := p.mustPod(t, "web/quitter", podIP4, podIP6)
	quitter.do(order{Dial: dial4, Hold: true})
	quitter.do(order{Disconnect: true})
	mover := p.mustPod(t, "web/mover", podIP4, podIP6)
	mover.do(order{Dial: dial4, Hold: true})
	mover.do(order{Dial: netip.MustParseAddrPort("192.0.2.7:9"), Move: true})
	serve(dns(), ready(2, 1)...) // the first is gone before the next pod is there
	keeper := p.mustPod(t, "web/keeper", podIP4, podIP6)
	keeper.do(order{Dial: dial4, Hold: true})
	p.putName(t, 1<<40, "web/missing", "/proc/self/no-such-namespace")
	p.putName(t, 1<<41, "web/stranger", "/proc/self/ns/net")

	ctx, cancel := context.WithCancel(t.Context())
	var run errgroup.Group
	run.Go(func() error { return e.Run(ctx) })
	deadline := time.Now().Add(20 * time.Second)
	for {
		_, err := loser.try(order{Verify: true})
		if err != nil && strings.Contains(err.Error(), unix.ECONNABORTED.Error()) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the socket still lives: %v; %+v", err, e.Stats())
		}
	}
	for e.Stats().Sweeps == 0 || logged.String() == "" { // the sweep has come to its end
		if time.Now().After(deadline) {
			t.Fatalf("the sweep did not end: %+v", e.Stats())
		}
	}
	if _, err := keeper.try(order{Verify: true}); err != nil {
		t.Errorf("the socket of an endpoint that is there: %v", err)
	}
	if _, err := quitter.try(order{Verify: true}); err != nil {
		t.Errorf("the socket that was disconnected from the endpoint before: %v", err)
	}
	if _, err := mover.try(order{Verify: true}); err != nil {
		t.Errorf("the socket that was connected to no service afterwards: %v", err)
	}
	cancel()
	if err := run.Wait(); !errors.Is(err, context.Canceled) {
		t.Errorf("Run returned %v", err)
	}
	for _, name := range []string{"web/missing", "web/stranger"} {
		if !strings.Contains(logged.String(), name) {
			t.Errorf("log does not name %s: %s", name, logged.String())
		}
	}
	for _, pod := range []string{"web/missing", "web/stranger"} {
		if !strings.Contains(e.Stats().LastError, pod) {
			t.Errorf("last error %q does not name %s", e.Stats().LastError, pod)
		}
	}
}

// Promise: an agent that has been replaced changes nothing, and says why.
func TestStaleEngineWritesNothing(t *testing.T) {
	maps := mustMaps(t)
	o := testOptions(t, maps)
	e, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Apply(t.Context(), "test", serviceChange(dns(), ready(1, 1))); err != nil {
		t.Fatal(err)
	}
	before, err := (&kernel{maps: maps}).load()
	if err != nil {
		t.Fatal(err)
	}
	mustWord(t, maps.Super, testEpoch+1)
	more := serviceChange(dns(), append(ready(1, 1), ready(2, 1)...))
	for _, c := range []Change{more, {Services: map[string]*Service{dns().Name: nil}}} {
		if err := e.Apply(t.Context(), "test", c); !errors.Is(err, bpf.ErrStale) {
			t.Fatalf("got %v, want ErrStale", err)
		}
	}
	after, err := (&kernel{maps: maps}).load()
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(before, after) {
		t.Error("the maps have changed")
	}
}
