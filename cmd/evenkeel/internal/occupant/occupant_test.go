// SPDX-License-Identifier: Apache-2.0

package occupant

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
)

func TestIsStopped(t *testing.T) {
	for stat, want := range map[string]bool{
		"12 (agent) S 1 12": false, "12 (agent) T 1 12": true, "12 (agent) t 1 12": true,
		"12 (a) T (b) R 1": false, "12 (a ) S 1) T 1": true, "": false, "12 (cut": false,
	} {
		if got := isStopped(stat); got != want {
			t.Errorf("%q: %v", stat, got)
		}
	}
}

// Whoever listens at an address is found, by the address, by every address and by the other family's, and nobody else.
func TestWhoListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	at := l.Addr().(*net.TCPAddr)
	for _, ip := range []net.IP{at.IP, nil, net.IPv4zero, net.IPv6unspecified} {
		found, err := Listeners(&net.TCPAddr{IP: ip, Port: at.Port})
		if err != nil || len(found) != 1 {
			t.Fatalf("%v: %v, %v", ip, found, err)
		}
		if p := With(found[0]); p.PID != os.Getpid() || p.Stopped || !strings.HasPrefix(p.String(), fmt.Sprintf("pid %d (", p.PID)) {
			t.Errorf("%v: %+v, %s", ip, p, p)
		}
		if its, err := Sockets(os.Getpid()); err != nil || !its[found[0]] {
			t.Errorf("%v: not of this process, %v", ip, err)
		}
	}
	if found, err := Listeners(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 2), Port: at.Port}); err != nil || len(found) != 0 {
		t.Errorf("at another address: %v, %v", found, err)
	}
	if p := With(0); p != (Process{}) || p.Or() != "" {
		t.Errorf("nobody: %+v", p)
	}
}
