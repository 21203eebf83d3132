// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// counting is a canary whose counters are events, of which all of the generations that are bad are failures.
func counting(bad func(n uint16) bool, steps ...uint16) *Canary {
	return &Canary{
		Steps: steps, Hold: 300 * time.Millisecond,
		Rules: []Rule{{Name: "failures", Bad: []string{"bad"}, Of: []string{"all"}, Worse: 1.5, By: 0.01, Least: 50}},
		Count: func(g *Generation) (map[string]uint64, error) {
			var each []uint64
			if err := g.Maps["tiny_counts"].Lookup(uint32(0), &each); err != nil {
				return nil, err
			}
			c := map[string]uint64{}
			for _, n := range each {
				c["all"] += n
			}
			if bad(g.Number) {
				c["bad"] = c["all"]
			}
			return c, nil
		},
	}
}

func TestCanary(t *testing.T) {
	for _, c := range []struct {
		name  string
		bad   func(*Store) func(uint16) bool
		steps []uint16
		want  []Kind // of events
		why   string
	}{
		{"healthy", func(*Store) func(uint16) bool { return func(uint16) bool { return false } }, []uint16{1024, Shares},
			[]Kind{KindInstall, KindCanary, KindUpgrade}, ""},
		{"unhealthy", func(*Store) func(uint16) bool { return func(n uint16) bool { return n == 2 } }, []uint16{1024, Shares},
			[]Kind{KindInstall, KindCanary, KindWithdraw}, "failures: 100.00%"},
		{"unhealthy once it serves all", func(s *Store) func(uint16) bool {
			return func(n uint16) bool { return n == 2 && s.Word().Serve() == 2 }
		}, []uint16{1024, Shares}, []Kind{KindInstall, KindCanary, KindUpgrade, KindRollback}, "failures: 100.00%"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBed(t)
			b.open(t, _TinyBytes).Close()
			load := start(t, job{Do: "connect", Busy: 2}, b.cgroup)
			load.done(t)
			s := b.openAny(t, tinyPlane(_TinyOtherBytes))
			seen := map[string]bool{}
			_, err := s.Upgrade(t.Context(), Attempt{
				Canary: counting(c.bad(s), c.steps...), Progress: func(p Progress) { seen[p.Doing] = true },
			})
			load.end(t)
			var kinds []Kind
			events := b.inspect(t).Events
			for _, e := range events {
				kinds = append(kinds, e.Kind)
			}
			if !slices.Equal(kinds, c.want) {
				t.Errorf("history: %v", events)
			}
			last := events[len(events)-1]
			if healthy := c.why == ""; healthy != (err == nil) || !strings.Contains(last.Text, c.why) {
				t.Errorf("%v; the history says %q", err, last.Text)
			}
			if (s.Word().Serve() == 2) != (c.why == "") || s.Word().Canary() != 0 {
				t.Errorf("the word is %v", s.Word())
			}
			if c.why == "" && !seen["canary 25%"] {
				t.Errorf("progress: %v", seen)
			}
			t.Logf("%v", err)
			b.sound(t)
			if missed := total(t, b.dir, tinyTinyTotalTINY_MISSED); missed > 0 {
				t.Errorf("%d events met an empty slot", missed)
			}
			if mixed := total(t, b.dir, tinyTinyTotalTINY_MIXED); mixed > 0 && c.why == "" {
				t.Errorf("%d events met another generation than the connection's", mixed)
			}
		})
	}
}

// A canary whose owner died is withdrawn by the next.
func TestForsakenCanary(t *testing.T) {
	b := newBed(t)
	s := b.open(t, _TinyBytes)
	if err := s.Load(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	next, err := s.Word().Try(2, 400)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Swap(s.Word(), next); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s = b.open(t, _TinyBytes)
	if s.Word().Canary() != 0 || s.Generation(2) != nil {
		t.Errorf("it is still there: %v", s.Word())
	}
	b.sound(t)
}

func TestParseShares(t *testing.T) {
	got, err := ParseShares("0%, 5%,25%,100%")
	if err != nil || !slices.Equal(got, []uint16{0, 204, 1024, 4096}) {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "5%,5%", "50,20", "101%", "-1", "x", "NaN"} {
		if got, err := ParseShares(bad); err == nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
}
