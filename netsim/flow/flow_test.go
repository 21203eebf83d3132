// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/netsim/flow/record"
	"github.com/evenkeel/evenkeel/netsim/flow/wire"
)

// serve runs a server on free ports of the loopback until the test ends, and returns where each protocol listens.
func serve(t *testing.T) func(*wire.Protocol) netip.AddrPort {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	var on []Port
	for _, p := range wire.Protocols() {
		on = append(on, Port{Protocol: p}) // any free one
	}
	s, err := listen(ctx, "127.0.0.1", on)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return func(p *wire.Protocol) netip.AddrPort {
		for _, l := range s.listeners {
			if l.Protocol() == p {
				return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(l.Port()))
			}
		}
		t.Fatalf("nobody listens for %s", p.Name)
		return netip.AddrPort{}
	}
}

// session is a client under test.
type session struct {
	*testing.T
	commands  *io.PipeWriter
	said      chan string
	ended     chan error
	recording bytes.Buffer
}

// closing is a buffer that a process would have as a file.
type closing struct{ *bytes.Buffer }

func (closing) Close() error { return nil }

// watch starts a client and returns when its flows are established.
func watch(t *testing.T, plan Plan) *session {
	t.Helper()
	s := &session{T: t, said: make(chan string, 1), ended: make(chan error, 1)}
	text, err := json.Marshal(plan)
	if err != nil {
		t.Fatal(err)
	}
	in, commands := io.Pipe()
	out, lines := io.Pipe()
	s.commands = commands
	go func() {
		err := RunClient(context.Background(), in, lines, "")
		lines.Close()
		s.ended <- err
	}()
	p := &Process{said: s.said}
	go p.listen(bufio.NewReader(out), closing{&s.recording})
	fmt.Fprintf(commands, "%s\n", text)
	if got, more := <-s.said; got != Ready {
		t.Fatalf("it said %q, %v: %v", got, more, <-s.ended)
	}
	return s
}

// stop ends the client and returns the lines of its recording.
func (s *session) stop() []any {
	s.Helper()
	s.commands.Close()
	if err := <-s.ended; err != nil {
		s.Fatal(err)
	}
	if got, more := <-s.said; more {
		s.Fatalf("it says %q", got)
	}
	var lines []any
	each := func(line any) error { lines = append(lines, line); return nil }
	if err := record.Read(bytes.NewReader(s.recording.Bytes()), s.Name(), each); err != nil {
		s.Fatal(err)
	}
	return lines
}

// only returns the lines of one type.
func only[T any](lines []any) []T {
	var found []T
	for _, line := range lines {
		if line, is := line.(*T); is {
			found = append(found, *line)
		}
	}
	return found
}

// plan is one flow of every kind, with a server at address.
func everyKind(address func(*wire.Protocol) netip.AddrPort) Plan {
	p := Plan{Drain: Duration(5 * time.Second)}
	for _, k := range Kinds() {
		spec := Spec{Name: k.Name, Kind: k.Name, To: address(k.Protocol)}
		if k.Name == "probe" {
			spec.Must = record.MustPass
		}
		p.Flows = append(p.Flows, spec)
	}
	return p
}

func TestEveryKindIsIntact(t *testing.T) {
	s := watch(t, everyKind(serve(t)))
	<-time.After(600 * time.Millisecond) // of traffic
	lines := s.stop()
	if broken := only[record.Break](lines); len(broken) > 0 {
		t.Fatalf("%+v", broken)
	}
	names := map[uint64]record.Flow{}
	for _, f := range only[record.Flow](lines) {
		names[f.ID] = f
	}
	dones := only[record.Done](lines)
	if len(dones) != len(Kinds()) {
		t.Errorf("%d flows were watched to their end, not %d", len(dones), len(Kinds()))
	}
	for _, d := range dones {
		f := names[d.Flow]
		due := uint64(600 * time.Millisecond / time.Duration(f.Period))
		if f.Silent {
			due = 1
		}
		if d.Sent < due*9/10 || d.Received != d.Sent {
			t.Errorf("%s: %d frames were due, %d sent, %d received", f.Name, due, d.Sent, d.Received)
		}
		if f.Must == "" && (d.Cookie == 0 || d.Cookie != f.Cookie) {
			t.Errorf("%s: cookie %d became %d", f.Name, f.Cookie, d.Cookie)
		}
		if state := tcpState(d); f.Must == "" && f.Kind != "udp" && state != "established" && f.Kind != "half-closed" &&
			state != "close_wait" {
			t.Errorf("%s: TCP is %s", f.Name, state)
		}
	}
}

func tcpState(d record.Done) string {
	if d.TCP == nil {
		return "missing"
	}
	return d.TCP.State
}

func TestMustFail(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free := netip.MustParseAddrPort(closed.Addr().String())
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	address := serve(t)
	s := watch(t, Plan{Flows: []Spec{
		{Name: "tcp refused", Kind: "probe", Must: "fail", To: free},
		{Name: "udp refused", Kind: "probe", Must: "fail", Protocol: "udp", To: free},
		{Name: "tcp allowed", Kind: "probe", Must: "fail", To: address(wire.Stream)},
		{Name: "udp allowed", Kind: "probe", Must: "fail", Protocol: "udp", To: address(wire.UDP)},
		{Name: "tcp denied", Kind: "probe", Must: "pass", To: free},
	}})
	<-time.After(200 * time.Millisecond) // of attempts
	lines := s.stop()
	for i, d := range only[record.Done](lines) {
		f := only[record.Flow](lines)[0]
		for _, other := range only[record.Flow](lines) {
			if other.ID == d.Flow {
				f = other
			}
		}
		wrong := strings.Contains(f.Name, "allowed") || strings.Contains(f.Name, "denied")
		if d.Sent < 15 || wrong && d.Breaks != d.Sent || !wrong && (d.Breaks != 0 || d.Received != d.Sent) {
			t.Errorf("%d: %s: %+v", i, f.Name, d)
		}
	}
}

// An attempt that fails for want of a local address says nothing about whether it is allowed.
func TestUnproved(t *testing.T) {
	err := fmt.Errorf("dial: %w", &net.OpError{Err: context.DeadlineExceeded})
	if local(err) || outcomeOf(err) != "timeout" {
		t.Errorf("a timeout is %s", outcomeOf(err))
	}
}

func TestBadPlans(t *testing.T) {
	flow := func(more string) string { return `{"flows":[{"name":"a","to":"127.0.0.1:1"` + more + `}]}` }
	for text, want := range map[string]string{
		``:                                         "parse plan",
		`{}`:                                       "no flows",
		`{"flows":[],"x":1}`:                       "unknown field",
		flow(``):                                   `flow a: kind "" is unknown`,
		flow(`,"kind":"trickel"`):                  "there are idle, trickle",
		flow(`,"kind":"trickle","period":"1us"`):   "below 1ms",
		flow(`,"kind":"trickle","period":"x"`):     "invalid duration",
		flow(`,"kind":"trickle","size":95`):        "size 95",
		flow(`,"kind":"udp","size":1453`):          "size 1453",
		flow(`,"kind":"trickle","must":"pass"`):    "only kind probe",
		flow(`,"kind":"trickle","protocol":"udp"`): "only kind probe",
		flow(`,"kind":"probe"`):                    "must pass or fail",
		flow(`,"kind":"probe","must":"maybe"`):     "must pass or fail",
		flow(`,"kind":"probe","must":"fail","protocol":"x"`):   `protocol "x"`,
		flow(`,"kind":"storm","must":"fail"`):                  "only kind probe",
		`{"flows":[{"name":"a","kind":"trickle"}]}`:            "no address",
		`{"flows":[{"kind":"trickle"}]}`:                       `name ""`,
		`{"flows":[{"name":"a","kind":"trickle","to":"h:1"}]}`: "parse plan",
	} {
		if _, err := ParsePlan([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

func FuzzParseHello(f *testing.F) {
	f.Add([]byte(`{"push":"10ms","size":96}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if h, err := parseHello(text); err == nil && h.Push != 0 && (h.Size < wire.HeaderSize || h.Size > wire.MaxSize) {
			t.Errorf("%q: %+v", text, h)
		}
	})
}

func FuzzParsePlan(f *testing.F) {
	f.Add([]byte(`{"flows":[{"name":"a","kind":"udp","to":"[::1]:1","period":"10ms"}],"drain":"1s"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if p, err := ParsePlan(text); err == nil && (len(p.Flows) == 0 || p.Flows[0].Period <= 0) {
			t.Errorf("%q: %+v", text, p)
		}
	})
}

func TestOwnLatenessIsNotTheConnections(t *testing.T) {
	const ms = int64(time.Millisecond)
	for name, c := range map[string]struct {
		writes         []stretch
		due, sent, own int64
	}{
		"in time":                              {nil, 100, 100, 0},
		"woken late":                           {nil, 100, 107, 7},
		"the write before waited":              {[]stretch{{90, 130}}, 100, 130, 0},
		"it waited, and then was woken late":   {[]stretch{{90, 130}}, 100, 135, 5},
		"woken late, then two waited":          {[]stretch{{104, 120}, {121, 130}}, 100, 132, 7},
		"a write that was over does not count": {[]stretch{{80, 99}}, 100, 107, 7},
	} {
		s := newSchedule(0, time.Millisecond)
		for _, w := range c.writes {
			s.wrote(w.from*ms, w.to*ms)
		}
		if got := s.own(c.due*ms, c.sent*ms); got != c.own*ms {
			t.Errorf("%s: %v", name, time.Duration(got))
		}
	}
}

func TestBitmap(t *testing.T) {
	var b bitmap
	for _, n := range []uint64{0, 63, 64, 1000} {
		if b.has(n) {
			t.Errorf("%d is in it", n)
		}
		b.set(n)
		if !b.has(n) {
			t.Errorf("%d is not in it", n)
		}
	}
	if b.count != 4 || b.has(999) || b.has(1<<40) {
		t.Errorf("%+v", b)
	}
}
