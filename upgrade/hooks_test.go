// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"context"
	"fmt"
	"io"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fewHooks is a release that has the first hook only.
func fewHooks() DataPlane {
	few := tinyPlane(_TinyBytes)
	few.Hooks = few.Hooks[:1]
	return few
}

// rehook goes to a release with more hooks ("more") or fewer ("fewer"), and gives the way back up.
func (j job) rehook(ctx context.Context, o Options, steps *int) error {
	plane := tinyPlane(_TinyBytes)
	if j.Do == "fewer" {
		plane = fewHooks()
	}
	o.Accept = AcceptAny
	s, err := Open(ctx, plane, o)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := settled(ctx, s); err != nil {
		return err
	}
	fmt.Fprintln(os.Stdout, "done", *steps)
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// settled has the release of a store serve, and nothing else there.
func settled(ctx context.Context, s *Store) error {
	if _, err := s.Upgrade(ctx, Attempt{}); err != nil {
		return err
	}
	return s.RetireOthers(ctx)
}

// Killed after any step of a change to more hooks or to fewer, the old release's end included, the next owner, of either
// release, goes on from there. Steps up to the publication of a generation are those of any upgrade.
func TestHooksSurviveKillAtEveryStep(t *testing.T) {
	const publication = 16
	for lane := range lanes {
		t.Run(fmt.Sprint("lane", lane), func(t *testing.T) {
			t.Parallel()
			killRehooks(t, publication+lane*stride())
		})
	}
}

// killRehooks kills at every step of a lane, on a node of its own.
func killRehooks(t *testing.T, first int) {
	b := newBed(t)
	planes := map[string]DataPlane{"fewer": fewHooks(), "more": tinyPlane(_TinyBytes)}
	want := make(map[string][]string)
	reach := func(do string) {
		t.Helper()
		s := b.openAny(t, planes[do])
		if err := settled(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		s.Close()
		b.sound(t)
		have := withoutNumbers(inventory(t, b.dir))
		if want[do] == nil {
			want[do] = have
		}
		if diff := cmp.Diff(want[do], have); diff != "" {
			t.Errorf("inventory (-undisturbed +recovered):\n%s", diff)
		}
	}
	reach("fewer")
	steps := max(b.count(t, "more"), b.count(t, "fewer"))
	for k := first; k <= steps; k += lanes * stride() {
		for _, turn := range [][2]string{{"fewer", "more"}, {"more", "fewer"}} {
			b.kill(t, turn[1], k)       // or it is over before
			if (k-first)/lanes%4 == 3 { // the old release comes back first
				reach(turn[0])
			}
			reach(turn[1])
		}
	}
	t.Logf("%d steps", steps)
}
