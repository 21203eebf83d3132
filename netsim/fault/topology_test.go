// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"errors"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// The faults of topology, by name, on a lab that serves. While one lasts the client reaches nothing, where that is what
// it means; healed, all is as before.
func TestTopologyFaults(t *testing.T) {
	t.Parallel()
	e := lab(t, true)
	e.mustServe(t)
	for _, c := range []struct {
		fault string
		cut   bool // nothing is reached while it lasts
	}{
		{"link-down pod/client", true}, {"link-down pod/server end=pod", true}, {"wire-down wire/b,a", true},
		{"link-recreated pod/client", false}, {"link-recreated pod/server", false},
		{"link-mtu pod/client end=pod", false}, {"wire-mtu wire/a,b mtu=1300", false},
		{"address-changed pod/server", true}, {"address-changed pod/client", true},
		{"netns-deleted pod/server", true}, {"netns-deleted pod/client", false},
		{"reboot node/b order=agent,network,servers", false}, {"reboot node/a order=network,servers,agent", false},
		{"reboot node/b seed=3", false},
	} {
		t.Run(c.fault, func(t *testing.T) {
			i := inject(t, e.mustBuild(t, c.fault))
			if c.cut {
				if err := e.dial(t); err == nil {
					t.Error("the service is reached all the same")
				}
			}
			mustHeal(t, i)
			if _, is := i.Fault.(*Reboot); !is { // which is another boot for good
				if n, err := i.Active(t.Context()); n != 0 && !event(i.Fault) || err != nil {
					t.Errorf("healed: active %d, %v", n, err)
				}
			}
			e.mustRun(t, "a")
			e.mustRun(t, "b")
			e.mustServe(t)
			newPinger(t, e.Lab, 0).mustAnswer(t)
			newPinger(t, e.Lab, 1).mustAnswer(t)
			e.whole(t, "a")
			e.whole(t, "b")
		})
	}
}

// event tells whether a fault is something that happens once, and not a state that healing ends.
func event(f Fault) bool {
	switch f.(type) {
	case *LinkAnew, *DeleteNetns:
		return true
	}
	return false
}

func TestTopologyInert(t *testing.T) {
	e := lab(t, false)
	_, h := injectQuiet(t, e.mustBuild(t, "link-down pod/client"))
	if err := e.Lab.MendPod(t.Context(), "default/client", false); err != nil {
		t.Fatal(err)
	}
	if err := h.heal(t.Context()); !errors.Is(err, ErrInert) {
		t.Errorf("healing of a link that somebody has set up: %v", err)
	}
	for _, text := range []string{"link-mtu pod/client mtu=1500", "link-down pod/server"} {
		f := e.mustBuild(t, text)
		if d, is := f.(*LinkDown); is { // it is down already
			if err := d.must(func(h *netlink.Handle, l netlink.Link) error { return h.LinkSetDown(l) }); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.Prepare(t.Context()); err == nil {
			t.Errorf("%s: it says that it can be done", text)
		}
	}
}

// A low MTU breaks nothing that TCP can put right, and large datagrams are cut up.
func TestMTU(t *testing.T) {
	e := lab(t, false)
	i := inject(t, e.mustBuild(t, "wire-mtu wire/a,b mtu=1300"))
	p := newPinger(t, e.Lab, 0)
	if _, ok := p.ask(t, time.Second); !ok {
		t.Error("a small datagram was lost")
	}
	mustHeal(t, i)
}
