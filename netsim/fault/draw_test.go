// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What a walk draws can be built, and the same again from the same seed.
func TestDraw(t *testing.T) {
	e := lab(t, true)
	draw := func() (all []string) {
		random := rand.New(rand.NewPCG(7, 7))
		for range 200 {
			s, err := e.Draw(random, Kinds())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := e.Build(s); err != nil {
				t.Errorf("%v: %v", s, err)
			}
			all = append(all, s.String())
		}
		return all
	}
	first := draw()
	if diff := cmp.Diff(first, draw()); diff != "" {
		t.Error(diff)
	}
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"kill agent/a", "stop agent/a", true}, {"kill agent/a", "stop agent/b", false},
		{"link-down pod/client", "kill agent/a", true}, {"link-down pod/client", "kill agent/b", false},
		{"loss wire/a,b", "delay wire/b,a", true}, {"loss wire/a,b", "kill agent/a", false},
		{"reboot node/a", "loss wire/b,a", true}, {"bpffs-unmounted lab", "loss wire/a,b", true},
		{"source-gone source", "source-storm source", true}, {"stop-at agent/a", "kill agent/b", true},
		{"stop-at agent/a", "wire-down wire/a,b", true}, {"wedge-at agent/a", "loss wire/a,b", false},
	} {
		a, err := ParseSpec(c.a)
		if err != nil {
			t.Fatal(err)
		}
		b, err := ParseSpec(c.b)
		if err != nil {
			t.Fatal(err)
		}
		if got := e.Conflict(a, b); got != c.want || e.Conflict(b, a) != c.want {
			t.Errorf("%s and %s: %v", c.a, c.b, got)
		}
	}
}
