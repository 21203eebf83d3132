// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/netsim/fault/supervisor"
)

func TestKill(t *testing.T) {
	for _, signal := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		p := start(t, "victim")
		i := inject(t, &Kill{Process: p.Process, Signal: signal, After: time.Millisecond})
		_ = p.cmd.Wait()
		if got := p.cmd.ProcessState.String(); !strings.Contains(got, signal.String()) {
			t.Errorf("%v: %s", i, got)
		}
		mustHeal(t, i)
	}
}

// What has ended already cannot be killed, and a signal that does not end a process is no kill.
func TestKillThatCannotBite(t *testing.T) {
	p := start(t, "victim")
	dead := p.Process
	dead.Start++
	var h healing
	_, err := Options{Self: self(t)}.Inject(t.Context(), h.register, &Kill{Process: dead, Signal: unix.SIGKILL})
	if !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("kill of a process that has ended: %v", err)
	}
	if err := h.heal(t.Context()); err != nil {
		t.Errorf("nothing was injected, healing says: %v", err)
	}
}

func TestStop(t *testing.T) {
	p := start(t, "victim")
	i := inject(t, &Stop{Process: p.Process})
	mustHeal(t, i)
	if stopped, others, err := threads(p.Process); stopped > 0 || others == 0 || err != nil {
		t.Errorf("healed: %d threads stand, %d do not, %v", stopped, others, err)
	}
}

// A fault that somebody has undone behind its back is inert.
func TestInertIsCaught(t *testing.T) {
	p := start(t, "victim")
	var h healing
	_, err := Options{Self: self(t)}.Inject(t.Context(), h.register, &Stop{Process: p.Process})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Signal(unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err := h.heal(t.Context()); !errors.Is(err, ErrInert) {
		t.Errorf("healing of a stop that is none: %v", err)
	}
	if err := h.heal(t.Context()); err != nil {
		t.Errorf("healing again: %v", err)
	}
}

func TestFreeze(t *testing.T) {
	p := start(t, "victim")
	i := inject(t, &Freeze{Process: p.Process})
	if err := p.Signal(unix.SIGCONT); err != nil { // which ends a stop, but no frost
		t.Fatal(err)
	}
	mustBite(t, i)
	mustHeal(t, i)
	if n, err := i.Active(t.Context()); n != 0 || err != nil {
		t.Errorf("healed: %d processes are frozen, %v", n, err)
	}
}

func TestFreezeSparesItself(t *testing.T) {
	needRoot(t)
	p := start(t, "victim")
	own := p.Process
	own.PID = os.Getpid()
	f := &Freeze{Process: own}
	if err := f.Prepare(t.Context()); err == nil {
		t.Error("it would freeze itself")
	}
}

func TestOutOfMemory(t *testing.T) {
	p := start(t, "victim")
	o := &OutOfMemory{Process: p.Process, Self: self(t)}
	i := inject(t, o)
	_ = p.cmd.Wait()
	if got := p.cmd.ProcessState.String(); got != "signal: killed" {
		t.Errorf("the victim: %s", got)
	}
	mustHeal(t, i)
	if _, err := os.Stat(o.Cgroup); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left: %v", o.Cgroup, err)
	}
}

// Healed before the OOM killer came, the process is where it was.
func TestOutOfMemoryIsHealedHalfway(t *testing.T) {
	p := start(t, "victim")
	o := &OutOfMemory{Process: p.Process, Self: []string{"/bin/false"}}
	if err := o.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := contextWithTimeout(t, 100*time.Millisecond)
	defer cancel()
	if err := o.Inject(ctx); err == nil {
		t.Error("nothing used memory up, and it says that it worked")
	}
	if n, err := o.Active(t.Context()); n != 0 || err != nil {
		t.Errorf("active %d, %v", n, err)
	}
	if err := o.Heal(t.Context()); err != nil {
		t.Error(err)
	}
	if !p.Alive() {
		t.Error("the victim is dead")
	}
	if score, err := os.ReadFile(o.scoreFile()); err != nil || strings.TrimSpace(string(score)) != o.Score {
		t.Errorf("score %s, was %s, %v", score, o.Score, err)
	}
}

func TestDescriptors(t *testing.T) {
	p := start(t, "opener")
	ask := func() string {
		fmt.Fprintln(p.stdin)
		return p.read(t)
	}
	if got := ask(); got != "opened <nil>" {
		t.Fatalf("before: %s", got)
	}
	i := inject(t, &Descriptors{Process: p.Process})
	if got := ask(); got != "opened too many open files" {
		t.Errorf("it could open a file: %s", got)
	}
	mustHeal(t, i)
	if got := ask(); got != "opened <nil>" {
		t.Errorf("healed: %s", got)
	}
	if n, err := i.Active(t.Context()); n != 0 || err != nil {
		t.Errorf("healed: active %d, %v", n, err)
	}
}

// A limit that somebody has raised again is no fault.
func TestDescriptorsInert(t *testing.T) {
	p := start(t, "opener")
	d := &Descriptors{Process: p.Process}
	i := inject(t, d)
	if err := d.set(d.Limit); err != nil {
		t.Fatal(err)
	}
	if err := i.Heal(t.Context()); !errors.Is(err, ErrInert) {
		t.Errorf("healing: %v", err)
	}
}

// Who injects a fault and dies has it healed all the same.
func TestDeadManOutlivesTheInjector(t *testing.T) {
	p := start(t, "victim")
	stderr := new(strings.Builder)
	cmd := exec.Command("/proc/self/exe", "dies", fmt.Sprintf("%d %d", p.PID, p.Start))
	cmd.Stderr = stderr
	err := cmd.Run() // returns when the dead man has closed standard error, too
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.String() != "signal: killed" {
		t.Fatalf("the injector: %v: %s", err, stderr)
	}
	if stopped, others, err := threads(p.Process); stopped > 0 || others == 0 || err != nil {
		t.Errorf("%d threads stand, %d do not, %v", stopped, others, err)
	}
	if !strings.Contains(stderr.String(), "the process that injected it has ended") {
		t.Errorf("the dead man says %q", stderr)
	}
}

// A fault that lasts too long is healed, and whoever heals it later is told.
func TestDeadManKeepsTheLimit(t *testing.T) {
	p := start(t, "victim")
	var h healing
	_, err := Options{Self: self(t), Limit: 50 * time.Millisecond}.Inject(t.Context(), h.register, &Stop{Process: p.Process})
	if err != nil {
		t.Fatal(err)
	}
	err = await(t.Context(), "it is healed", func() (bool, error) {
		stopped, _, err := threads(p.Process)
		return stopped == 0, err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.heal(t.Context()); !errors.Is(err, ErrInert) || !strings.Contains(err.Error(), "dead man") {
		t.Errorf("healing after the dead man: %v", err)
	}
}

// The faults of processes, done to a real agent by name. Each leaves one that runs.
func TestAgentFaults(t *testing.T) {
	t.Parallel()
	e := lab(t, true)
	for _, text := range []string{
		"term agent/a", "kill agent/a after=0s..20ms seed=3", "stop agent/a", "freeze agent/b", "out-of-memory agent/a",
		"descriptors agent/a", "kill-at agent/a number=3 when=after", `kill-at agent/b call="bpf PROG_TEST_RUN super_change (1,0)"`,
		"double-crash agent/a number=2 then-number=1 then-when=after", "crash-loop agent/b count=5 within=100ms seed=1",
		"stop-at agent/a number=2 when=after", "wedge-at agent/a number=2", "second-agent agent/a",
	} {
		t.Run(text, func(t *testing.T) {
			i := inject(t, e.mustBuild(t, text))
			if s, is := i.Fault.(*SecondAgent); is {
				said, err := s.Ended(t.Context())
				if err == nil {
					t.Errorf("the second agent has ended content: %s", said)
				}
			}
			mustHeal(t, i)
			node := text[strings.Index(text, "/")+1:][:1]
			e.mustRun(t, node)
		})
	}
}

// A place that a start never passes is no fault.
func TestKillAtNowhere(t *testing.T) {
	e := lab(t, true)
	var h healing
	f := e.mustBuild(t, "kill-at agent/a number=1000000")
	_, err := Options{Self: self(t)}.Inject(t.Context(), h.register, f)
	if !errors.Is(err, ErrInert) {
		t.Errorf("kill at call 1000000: %v", err)
	}
	if err := h.heal(t.Context()); err != nil {
		t.Error(err)
	}
	e.mustRun(t, "a")
}

// An uninterrupted start shows the same calls in every lab, and all of those that pin.
func TestTraceAgent(t *testing.T) {
	e := lab(t, true)
	agent := NewAgent(e.Lab, "a", e.Binary, self(t))
	first, err := agent.Trace(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	second, err := agent.Trace(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	count := func(calls []supervisor.Call) map[string]int {
		n := map[string]int{}
		for _, c := range calls {
			n[c.String()]++
			if strings.Contains(c.String(), e.Lab.Name()) {
				t.Errorf("call %v names the lab", c)
			}
		}
		return n
	}
	// The second agent adopts what the first one did: it pins nothing.
	if diff := cmp.Diff(count(first), count(second)); diff != "" {
		t.Errorf("calls of two starts:\n%s", diff)
	}
	// One that has to make everything makes the same each time.
	_, node, err := agent.info()
	if err != nil {
		t.Fatal(err)
	}
	var cold [2][]supervisor.Call
	for i := range cold {
		if err := agent.end(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(node.PinDir); err != nil {
			t.Fatal(err)
		}
		if cold[i], err = agent.Trace(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	a, b := count(cold[0]), count(cold[1])
	if diff := cmp.Diff(a, b); diff != "" {
		t.Errorf("calls of two first starts:\n%s", diff)
	}
	for _, must := range []string{"bpf OBJ_PIN {pins}/super", "bpf OBJ_PIN {pins}/links/connect4", "mkdirat {pins}/writers",
		"renameat {pins}/gen/1_new {pins}/gen/1"} {
		if a[must] == 0 && a[strings.Replace(must, "at ", " ", 1)] == 0 {
			t.Errorf("a first start does not %s", must)
		}
	}
	t.Logf("%d calls to adopt, %d to begin", len(first), len(cold[0]))
	e.mustRun(t, "a")
}

// Every moment of a start that adopts can be met, and whatever agent comes next is whole.
func TestEveryPlaceOfAStart(t *testing.T) {
	t.Parallel()
	e := lab(t, true)
	agent := NewAgent(e.Lab, "a", e.Binary, self(t))
	calls, err := agent.Trace(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	points := supervisor.Points(calls)
	killed := map[supervisor.Point]bool{}
	begin := time.Now()
	for _, p := range points {
		if testing.Short() && len(killed)%7 != 0 {
			killed[p] = true
			continue
		}
		var h healing
		k := &KillAt{Agent: agent, Places: []Place{{Call: p.Call, Occurrence: p.Occurrence, When: p.When}}}
		_, err := Options{Self: self(t)}.Inject(t.Context(), h.register, k)
		if err := errors.Join(err, h.heal(t.Context())); err != nil {
			t.Fatalf("%v: %v", p, err)
		}
		killed[p] = true
	}
	e.mustServe(t)
	e.whole(t, "a")
	t.Logf("%d places of %d calls, %v each", len(killed), len(calls), time.Since(begin)/time.Duration(len(points)))
}

// A command is supervised like an agent.
func TestSuperviseCommand(t *testing.T) {
	e := lab(t, true)
	_, node, err := NewAgent(e.Lab, "b", e.Binary, nil).info()
	if err != nil {
		t.Fatal(err)
	}
	if err := NewAgent(e.Lab, "b", e.Binary, nil).end(t.Context()); err != nil {
		t.Fatal(err)
	}
	uninstall := func(decide supervisor.Decide) (*Run, error) {
		cmd := exec.Command(e.Binary, "uninstall", "--yes", "--pin-dir", node.PinDir)
		run, err := Supervise(cmd, self(t), nil, decide)
		if err != nil {
			t.Fatal(err)
		}
		return run, errors.Join(run.Err(), run.Close())
	}
	run, err := uninstall(supervisor.AtNumber(5, supervisor.After, supervisor.Kill()))
	if err == nil || run.Acted() == nil || len(run.Calls()) != 5 {
		t.Errorf("killed after call 5 of %v: %v", run.Calls(), err)
	}
	run, err = uninstall(nil)
	if err != nil || len(run.Calls()) < 10 {
		t.Errorf("the second time: %v: %v", run.Calls(), err)
	}
	if _, err := os.Lstat(node.PinDir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("pins are left: %v", err)
	}
}
