// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"testing"
)

// Promise: services that somebody else has removed from the kernel are put back while the agent runs.
func TestForeignRemovalIsMended(t *testing.T) {
	p := mustPlane(t)
	pod := p.mustPod(t, "web/client", podIP4, podIP6)
	e, serve := mustServe(t, p)
	serve(dns(), ready(1, 1)...)
	keys, _, err := lookupAll[key, uint32](p.ServiceIds)
	if err != nil || len(keys) == 0 {
		t.Fatalf("%d keys, %v", len(keys), err)
	}
	if _, err := p.ServiceIds.BatchDelete(keys, nil); err != nil {
		t.Fatal(err)
	}
	if a := pod.do(order{Dial: dial4, Times: 10}); a.Peers[dial4] != 10 {
		t.Fatalf("the removal did nothing: %+v", a)
	}
	before := e.Stats()
	e.verify()
	if got := only(t, pod.do(order{Dial: dial4, Times: 100}).Peers); got != 1 {
		t.Errorf("got to endpoint %d, want 1", got)
	}
	if s := e.Stats(); s.Recovered != before.Recovered+1 || s.LastError == "" {
		t.Errorf("it does not show: %+v", s)
	}
	e.verify()
	if s := e.Stats(); s.Recovered != before.Recovered+1 {
		t.Error("restored again though nothing was changed")
	}
}
