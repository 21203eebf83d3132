// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"testing"
	"time"
)

// Promise: a workload stays on its endpoint as long as there is one, and then on another.
func TestConnectionsKeepAffinity(t *testing.T) {
	p := mustPlane(t)
	pod := p.mustPod(t, "web/client", podIP4, podIP6)
	e, serve := mustServe(t, p)
	sticky := dns()
	sticky.Affinity = time.Hour
	endpoints := [][]Endpoint{ready(1, 1), ready(2, 1), ready(3, 1), ready(4, 1)}
	serve(sticky, flat(endpoints)...)
	if got := mustGiven(t, e, "web/client"); got.IsValid() {
		t.Errorf("%s is to be given before anything was", got)
	}
	before := only(t, pod.do(order{Dial: dial4, Times: 500}).Peers)
	if got := mustGiven(t, e, "web/client"); number(got.Addr()) != before {
		t.Errorf("%s is to be given, but connections get to %d", got, before)
	}
	serve(sticky, flat(append(endpoints, ready(5, 1)))...)
	if after := only(t, pod.do(order{Dial: dial4, Times: 500}).Peers); after != before {
		t.Errorf("moved from %d to %d when another endpoint came", before, after)
	}
	left := append(endpoints[:before-1:before-1], endpoints[before:]...)
	serve(sticky, flat(left)...)
	if got := mustGiven(t, e, "web/client"); got.IsValid() {
		t.Errorf("%s is to be given, though that is gone", got)
	}
	if after := only(t, pod.do(order{Dial: dial4, Times: 500}).Peers); after == before {
		t.Errorf("still on %d, which is gone", before)
	}
}

// Promise: a workload leaves an endpoint that drains for one that is ready, and stays if there is none.
func TestAffinityLeavesDraining(t *testing.T) {
	p := mustPlane(t)
	pod := p.mustPod(t, "web/client", podIP4, podIP6)
	e, serve := mustServe(t, p)
	sticky := dns()
	sticky.Affinity = time.Hour
	dialled := func() int { t.Helper(); return only(t, pod.do(order{Dial: dial4, Times: 200}).Peers) }
	given := func(want int) {
		t.Helper()
		if got := mustGiven(t, e, "web/client"); want == 0 && got.IsValid() || want != 0 && number(got.Addr()) != want {
			t.Errorf("%s is to be given, want %d", got, want)
		}
	}
	draining := func(e *Endpoint) { e.Ready, e.Terminating = false, true }
	serve(sticky, flat([][]Endpoint{ready(1, 1), ready(2, 1)})...)
	first := dialled()
	second := 3 - first
	serve(sticky, flat([][]Endpoint{ready(first, 1, draining), ready(second, 1)})...)
	given(0)
	if got := dialled(); got != second {
		t.Errorf("still on %d, which drains", got)
	}
	serve(sticky, flat([][]Endpoint{ready(first, 1, draining), ready(second, 1, draining)})...)
	given(second)
	if got := dialled(); got != second {
		t.Errorf("moved from %d to %d though both drain", second, got)
	}
	serve(sticky, flat([][]Endpoint{ready(first, 1), ready(second, 1, draining)})...)
	if got := dialled(); got != first {
		t.Errorf("on %d, which drains, though the other is ready again", got)
	}
	serve(sticky, flat([][]Endpoint{ready(first, 1), ready(second, 1)})...)
	if got := dialled(); got != first {
		t.Errorf("moved from %d to %d when that came back", first, got)
	}
}
