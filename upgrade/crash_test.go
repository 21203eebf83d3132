// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

// count runs a job to its end, undisturbed, and returns how many steps it takes.
func (b bed) count(t *testing.T, do string) int {
	t.Helper()
	c := start(t, job{Do: do, Dir: b.dir, Cgroup: b.cgroup}, "")
	steps, killed := c.done(t)
	if killed || steps == 0 {
		t.Fatalf("%s took %d steps, killed: %v", do, steps, killed)
	}
	c.end(t)
	return steps
}

// kill runs a job that kills itself after a step, and reports whether it came to that.
func (b bed) kill(t *testing.T, do string, after int) bool {
	t.Helper()
	c := start(t, job{Do: do, Dir: b.dir, Cgroup: b.cgroup, Kill: after}, "")
	_, killed := c.done(t)
	if !killed {
		c.end(t)
	}
	return killed
}

// stride is how many steps a test goes on from one kill to the next: one, or more in a hurry (go test -short).
func stride() int {
	if testing.Short() {
		return 7
	}
	return 1
}

// sound makes sure that a tree is whole: nothing wrong, nothing half done.
func (b bed) sound(t *testing.T) {
	t.Helper()
	state := b.inspect(t)
	if len(state.Damages) > 0 || len(state.Building) > 0 || state.Phase != "idle" {
		t.Errorf("not whole: damages %v, building %v, phase %s", state.Damages, state.Building, state.Phase)
	}
}

// Killed after any step of creation, and once more in the recovery, the next owner ends up with what an undisturbed one
// has.
func TestCreateSurvivesKillAtEveryStep(t *testing.T) {
	b := newBed(t)
	steps := b.count(t, "open")
	want := inventory(t, b.dir)
	uninstall(t, b)
	for k := 1; k <= steps; k += stride() {
		t.Run(fmt.Sprint(k), func(t *testing.T) {
			if !b.kill(t, "open", k) {
				t.Fatalf("it was over before step %d", k)
			}
			b.kill(t, "open", 1+k*7%steps)
			b.open(t, _TinyBytes).Close()
			if diff := gocmp.Diff(want, inventory(t, b.dir)); diff != "" {
				t.Errorf("inventory (-undisturbed +recovered):\n%s", diff)
			}
			b.sound(t)
			uninstall(t, b)
		})
	}
	t.Logf("%d steps", steps)
}

func uninstall(t *testing.T, b bed) {
	t.Helper()
	if err := Uninstall(t.Context(), b.options()); err != nil {
		t.Fatalf("uninstall: %v", err)
	}
	if _, err := os.Stat(b.dir); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("%s is still there: %v", b.dir, err)
	}
}

// numbers are what differs when an upgrade is begun again: a number once given is spent.
var numbers = regexp.MustCompile(`gen/\d+|, \d+: `)

// withoutNumbers has generations in the order in which they were made, which that of their names is not from the tenth on.
func withoutNumbers(lines []string) []string {
	number := func(line string) (n int) {
		_, _ = fmt.Sscanf(line, "gen/%d", &n)
		return n
	}
	out := slices.SortedStableFunc(slices.Values(lines), func(a, b string) int { return cmp.Compare(number(a), number(b)) })
	for i, line := range out {
		out[i] = numbers.ReplaceAllString(line, "#")
	}
	return out
}

// Killed after any step of an upgrade, while connections are made: one complete generation serves throughout, and the
// next owner can bring the upgrade to its end.
func TestUpgradeSurvivesKillAtEveryStep(t *testing.T) {
	b := newBed(t)
	b.open(t, _TinyBytes).Close()
	all := b.count(t, "load")
	want := withoutNumbers(inventory(t, b.dir))
	load := start(t, job{Do: "connect", Busy: 1}, b.cgroup)
	load.done(t)
	for k := 2; k <= all; k += stride() { // the first step is to raise the epoch
		if !b.kill(t, "load", k) {
			t.Fatalf("it was over before step %d", k)
		}
		b.kill(t, "open", 1+k%5)
		s := b.open(t, _TinyBytes)
		b.sound(t)
		if err := finish(t, s); err != nil {
			t.Fatalf("after step %d: %v", k, err)
		}
		s.Close()
		if diff := gocmp.Diff(want, withoutNumbers(inventory(t, b.dir))); diff != "" {
			t.Errorf("inventory after a kill at step %d (-undisturbed +recovered):\n%s", k, diff)
		}
	}
	load.end(t)
	if missed := total(t, b.dir, tinyTinyTotalTINY_MISSED); missed != 0 {
		t.Errorf("%d events met an empty slot", missed)
	}
	if events := total(t, b.dir, tinyTinyTotalTINY_EVENTS); events < 1000 {
		t.Errorf("only %d events: that says little", events)
	}
	t.Logf("%d steps, %d events", all, total(t, b.dir, tinyTinyTotalTINY_EVENTS))
}

// finish ends an upgrade wherever it was cut short, or does one: afterwards one generation is left, which is not the
// one that was there before.
func finish(t *testing.T, s *Store) error {
	word := s.Word()
	if word.Floor() == word.Serve() {
		for _, n := range sortedKeys(s.view.generations) {
			if n != word.Serve() { // loaded and not served yet, or raised over and not retired yet
				if err := s.Retire(t.Context(), n); err != nil {
					return err
				}
			}
		}
		return upgradeOnce(t.Context(), s)
	}
	old := word.Floor()
	raised, err := word.Raise(word.Serve())
	if err != nil {
		return err
	}
	if err := s.Swap(word, raised); err != nil {
		return err
	}
	return s.Retire(t.Context(), old)
}

// Killed after any step of an uninstall, the next one ends it, and so does an agent that starts instead, which then
// makes a new data plane.
func TestUninstallSurvivesKillAtEveryStep(t *testing.T) {
	b := newBed(t)
	b.open(t, _TinyBytes).Close()
	want := inventory(t, b.dir)
	steps := b.count(t, "uninstall")
	for k := 1; k <= steps; k += stride() {
		b.open(t, _TinyBytes).Close()
		all := objects(t, b.dir)
		if !b.kill(t, "uninstall", k) {
			t.Fatalf("it was over before step %d", k)
		}
		b.kill(t, "uninstall", 1+k*7%steps)
		if k%2 == 0 {
			uninstall(t, b)
			all.gone(t)
			continue
		}
		b.open(t, _TinyBytes).Close()
		if diff := gocmp.Diff(want, inventory(t, b.dir)); diff != "" {
			t.Errorf("inventory after a kill at step %d (-undisturbed +recovered):\n%s", k, diff)
		}
		b.sound(t)
	}
	t.Logf("%d steps", steps)
}

// Killed after any step of attaching a pod anew, as a plugin may be, the pod can be attached, and nothing is left over.
func TestAttachSurvivesKillAtEveryStep(t *testing.T) {
	b := newBed(t)
	b.open(t, _TinyBytes).Close()
	gone := func() { // an interface of the same index elsewhere would be taken for the same
		t.Helper()
		eventually(t, "all links are defunct", func() bool {
			links, err := tree(b.dir).attached("links/pods/a")
			return err == nil && !slices.ContainsFunc(links, func(a Attached) bool { return !a.Defunct })
		})
	}
	b.count(t, "attach")
	gone()
	steps := b.count(t, "attach")
	if steps != 2*3 { // attach, pin beside and replace for two hooks
		t.Errorf("%d steps", steps)
	}
	for k := 1; k <= steps; k++ {
		gone()
		if !b.kill(t, "attach", k) {
			t.Fatalf("it was over before step %d", k)
		}
		gone()
		if k%2 == 0 {
			b.open(t, _TinyBytes).Close()
			if state := b.inspect(t); state.PodLinks != 2 {
				t.Errorf("%d links after a kill at step %d and an agent", state.PodLinks, k)
			}
		}
		c := start(t, job{Do: "attach", Dir: b.dir}, "")
		c.done(t)
		state := b.inspect(t)
		if len(state.Damages) > 0 || state.PodLinks != 2 || state.PodsDefunct > 0 {
			t.Errorf("after a kill at step %d: %d links, %d defunct, %v", k, state.PodLinks, state.PodsDefunct, state.Damages)
		}
		c.end(t)
	}
}

// Killed after any step of attaching the whole node anew, because its cgroup was made again.
func TestReattachSurvivesKillAtEveryStep(t *testing.T) {
	b := newBed(t)
	b.open(t, _TinyBytes).Close()
	anew := func() {
		t.Helper()
		if err := os.Remove(b.cgroup); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the links are defunct", func() bool { return len(b.inspect(t).Damages) == 2 })
		if err := os.Mkdir(b.cgroup, 0o755); err != nil { // removed by newBed
			t.Fatal(err)
		}
	}
	anew()
	steps := b.count(t, "open")
	if steps != 1+2*3 { // epoch; attach, pin beside and replace for two hooks
		t.Errorf("%d steps", steps)
	}
	for k := 1; k <= steps; k++ {
		anew()
		if !b.kill(t, "open", k) {
			t.Fatalf("it was over before step %d", k)
		}
		b.open(t, _TinyBytes).Close()
		b.sound(t)
	}
}

// Every step there is occurs in what the tests above kill, or is named here with the test that has it.
func TestEveryStepIsKilled(t *testing.T) {
	b := newBed(t)
	seen := map[Step]bool{
		StepReplaceLink: true,                                 // TestReattachSurvivesKillAtEveryStep
		StepSettle:      true, StepCopy: true, StepReap: true, // TestBridgeSurvivesKillAtEveryStep
	}
	options := b.options()
	options.Trace = func(s Step, _ string) { seen[s] = true }
	s, err := Open(t.Context(), tinyPlane(_TinyBytes), options)
	if err != nil {
		t.Fatal(err)
	}
	if err := upgradeOnce(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if err := Uninstall(t.Context(), options); err != nil {
		t.Fatal(err)
	}
	seen[StepSweep] = true // TestSweepBeforeNumbersComeRound: a second sweep finds nothing to do
	for _, s := range Steps() {
		if !seen[s] {
			t.Errorf("no test kills after %v", s)
		}
		if strings.HasPrefix(s.String(), "step-") {
			t.Errorf("step %d has no name", s)
		}
	}
}
