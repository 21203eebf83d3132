// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/netsim"
	"github.com/evenkeel/evenkeel/netsim/fault/wire"
)

// inside runs fn on a thread in a network namespace; sockets that it makes belong there for good.
func inside(t testing.TB, netns string, fn func() error) error {
	t.Helper()
	done := make(chan error, 1)
	var enter func()
	enter = func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() { // which cannot end
			again := make(chan struct{})
			go func() { defer close(again); enter() }()
			<-again
			runtime.UnlockOSThread()
			return
		}
		fd, err := unix.Open(netns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Setns(fd, unix.CLONE_NEWNET)
			unix.Close(fd)
		}
		if err == nil {
			err = fn()
		}
		done <- err
	}
	go enter()
	return <-done
}

// pinger asks the UDP server of a lab from its client.
type pinger struct {
	conn net.Conn
	sent int
}

func newPinger(t testing.TB, l *netsim.Lab, family int) *pinger {
	t.Helper()
	p := &pinger{}
	address := net.JoinHostPort(l.Pod("server").Addresses[family].String(), "9001")
	err := inside(t, l.Pod("client").Netns, func() (err error) {
		p.conn, err = net.Dial("udp", address)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.conn.Close() })
	return p
}

// ask sends a question and returns how long the answer took, or false if none came in time.
func (p *pinger) ask(t testing.TB, limit time.Duration) (time.Duration, bool) {
	t.Helper()
	p.sent++
	question := fmt.Sprint("ping ", p.sent)
	begin := time.Now()
	if _, err := p.conn.Write([]byte(question)); err != nil {
		return 0, false
	}
	if err := p.conn.SetReadDeadline(begin.Add(limit)); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 100)
	for {
		n, err := p.conn.Read(buffer)
		if errors.Is(err, os.ErrDeadlineExceeded) || err != nil && strings.Contains(err.Error(), "refused") {
			return 0, false
		}
		if err != nil {
			t.Fatal(err)
		}
		if string(buffer[:n]) == question {
			return time.Since(begin), true
		}
	}
}

// answered counts the answers to questions.
func (p *pinger) answered(t testing.TB, questions int) int {
	n := 0
	for range questions {
		if _, ok := p.ask(t, 20*time.Millisecond); ok {
			n++
		}
	}
	return n
}

const soon = 2 * time.Second // for an answer that must come

func (p *pinger) mustAnswer(t testing.TB) {
	t.Helper()
	if _, ok := p.ask(t, soon); !ok {
		t.Fatal("no answer where nothing is wrong")
	}
}

// injectQuiet injects a fault without asking whether it has bitten.
func injectQuiet(t testing.TB, f Fault) (*Injection, *healing) {
	t.Helper()
	h := new(healing)
	i, err := Options{Self: self(t)}.Inject(t.Context(), h.register, f)
	t.Cleanup(func() { _ = i.Heal(context.Background()) })
	if err != nil {
		t.Fatal(err)
	}
	return i, h
}

func TestPartition(t *testing.T) {
	e := lab(t, false)
	for family := range 2 {
		p := newPinger(t, e.Lab, family)
		for _, text := range []string{"partition wire/a,b", "partition wire/a,b ways=one", "partition wire/b,a ways=one"} {
			p.mustAnswer(t)
			i, _ := injectQuiet(t, e.mustBuild(t, text))
			if n := p.answered(t, 3); n > 0 {
				t.Errorf("%s: %d of 3 questions were answered", text, n)
			}
			if n, err := i.Active(t.Context()); n < 3 || err != nil {
				t.Errorf("%s: %d packets of 3 were dropped, %v", text, n, err)
			}
			mustHeal(t, i)
			p.mustAnswer(t)
		}
	}
}

// A partition that nothing runs into is inert.
func TestWireInert(t *testing.T) {
	e := lab(t, false)
	_, h := injectQuiet(t, e.mustBuild(t, "partition wire/a,b"))
	if err := h.heal(t.Context()); !errors.Is(err, ErrInert) {
		t.Errorf("healing a partition without traffic: %v", err)
	}
}

// fate sends a question and returns whether a wire that is spoiled one way has dropped it. One that was not is answered.
func (p *pinger) fate(t testing.TB, w *Wire) (dropped bool) {
	t.Helper()
	before, err := w.Counts()
	if err != nil {
		t.Fatal(err)
	}
	p.sent++
	question := fmt.Sprint("ping ", p.sent)
	if _, err := p.conn.Write([]byte(question)); err != nil {
		t.Fatal(err)
	}
	var after wire.Counts
	eventually(t, "the packet has come to the wire", func() bool {
		after, err = w.Counts()
		return err != nil || after.Seen > before.Seen
	})
	if err != nil || after.Seen != before.Seen+1 {
		t.Fatalf("counts %+v, then %+v, %v", before, after, err)
	}
	if after.Dropped > before.Dropped {
		return true
	}
	if err := p.conn.SetReadDeadline(time.Now().Add(soon)); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 100)
	if n, err := p.conn.Read(buffer); err != nil || string(buffer[:n]) != question {
		t.Fatalf("%s was not dropped, the answer is %q, %v", question, buffer[:n], err)
	}
	return false
}

// Half of all flows pass, always the same, both ways.
func TestHalfPartition(t *testing.T) {
	e := lab(t, false)
	there := e.mustBuild(t, "half-partition wire/a,b ways=one seed=5").(*Wire)
	back := e.mustBuild(t, "half-partition wire/b,a ways=one seed=5").(*Wire)
	i, _ := injectQuiet(t, there)
	_, h := injectQuiet(t, back) // drops nothing: what would be has not come that far
	const flows = 40
	passed := 0
	for flow := range flows {
		p := newPinger(t, e.Lab, flow%2)
		dropped := p.fate(t, there)
		if again := p.fate(t, there); again != dropped {
			t.Errorf("flow %d: its first packet was dropped: %v, its second: %v", flow, dropped, again)
		}
		if !dropped {
			passed++
		}
	}
	if passed < flows/5 || passed > flows*4/5 {
		t.Errorf("%d of %d flows passed", passed, flows)
	}
	t.Logf("%d of %d flows passed", passed, flows)
	mustHeal(t, i)
	if err := h.heal(t.Context()); !errors.Is(err, ErrInert) {
		t.Errorf("the way back has dropped something: %v", err)
	}
}

func TestLoss(t *testing.T) {
	e := lab(t, false)
	p := newPinger(t, e.Lab, 0)
	lost := func(seed int) (n int, pattern string) {
		f := e.mustBuild(t, fmt.Sprintf("loss wire/a,b share=30%% ways=one seed=%d", seed)).(*Wire)
		i, _ := injectQuiet(t, f)
		for range 200 {
			if p.fate(t, f) {
				n++
				pattern += "0"
			} else {
				pattern += "1"
			}
		}
		mustHeal(t, i)
		return n, pattern
	}
	n, first := lost(11)
	if n < 40 || n > 80 {
		t.Errorf("30 %% of 200 are %d: %s", n, first)
	}
	if _, second := lost(11); second != first {
		t.Errorf("one seed has lost\n%s, then\n%s", first, second)
	}
	if _, other := lost(12); other == first {
		t.Error("two seeds have lost the same")
	}
	p.mustAnswer(t)
}

func TestFlapping(t *testing.T) {
	e := lab(t, false)
	p := newPinger(t, e.Lab, 1)
	i, _ := injectQuiet(t, e.mustBuild(t, "flapping wire/a,b period=100ms down=50ms"))
	changes, up := 0, true
	for begin := time.Now(); time.Since(begin) < time.Second; {
		_, ok := p.ask(t, 5*time.Millisecond)
		if ok != up {
			changes, up = changes+1, ok
		}
	}
	if changes < 6 {
		t.Errorf("it went up and down %d times in a second", changes)
	}
	mustBite(t, i)
	mustHeal(t, i)
	p.mustAnswer(t)
}

func TestDelay(t *testing.T) {
	e := lab(t, false)
	for family := range 2 {
		p := newPinger(t, e.Lab, family)
		p.mustAnswer(t)
		f := e.mustBuild(t, "delay wire/a,b delay=30ms").(*Wire)
		if got := f.Config.Impairment.Backend(); got != "bpf+relay" || !strings.Contains(f.String(), got) {
			t.Errorf("the back end is %s: %v", got, f)
		}
		i, _ := injectQuiet(t, f)
		for range 3 {
			took, ok := p.ask(t, soon)
			if !ok || took < 60*time.Millisecond || took > 500*time.Millisecond {
				t.Errorf("the answer took %v over a wire of 30 ms each way, came: %v", took, ok)
			}
		}
		c, err := f.Counts()
		if err != nil || c.Delayed != 6 || c.Returned != 6 || c.Overflowed != 0 {
			t.Errorf("counts %+v, %v", c, err)
		}
		mustHeal(t, i)
		if took, ok := p.ask(t, soon); !ok || took >= 60*time.Millisecond {
			t.Errorf("healed, the answer took %v, came: %v", took, ok)
		}
	}
}

// TCP gets its bytes through a wire with delay, jitter and whatever the kernel makes of its segments.
func TestDelayedStream(t *testing.T) {
	e := lab(t, false)
	i := e.mustBuild(t, "delay wire/a,b delay=2ms jitter=2ms seed=3").(*Wire)
	injectQuiet(t, i)
	var conn net.Conn
	err := inside(t, e.Lab.Pod("client").Netns, func() (err error) {
		conn, err = net.Dial("tcp", net.JoinHostPort(e.Lab.Pod("server").Addresses[0].String(), "9000"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	const size = 8 << 20
	sent := make([]byte, size)
	for n := range sent {
		sent[n] = byte(n * n >> 8)
	}
	failed := make(chan error, 1)
	go func() {
		_, err := conn.Write(sent)
		failed <- err
	}()
	begin := time.Now()
	got := make([]byte, 0, size)
	buffer := make([]byte, 1<<16)
	for len(got) < size {
		n, err := conn.Read(buffer)
		if err != nil {
			t.Fatalf("after %d bytes: %v", len(got), err)
		}
		got = append(got, buffer[:n]...)
	}
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	if string(got) != string(sent) {
		t.Error("other bytes came back")
	}
	c, err := i.Counts()
	t.Logf("%d bytes there and back in %v, %+v, %v", size, time.Since(begin).Round(time.Millisecond), c, err)
}

// The process that spoils a wire may die: the wire is healed by that.
func TestWireDies(t *testing.T) {
	e := lab(t, false)
	p := newPinger(t, e.Lab, 0)
	f := e.mustBuild(t, "partition wire/a,b").(*Wire)
	_, h := injectQuiet(t, f)
	if err := killProcess(t.Context(), f.Process); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the wire works again", func() bool { _, ok := p.ask(t, 20*time.Millisecond); return ok })
	if err := h.heal(t.Context()); err == nil {
		t.Error("healing of a fault that has gone by itself says nothing")
	}
}

func eventually(t testing.TB, what string, true func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := await(ctx, what, func() (bool, error) { return true(), nil }); err != nil {
		t.Fatal(err)
	}
}
