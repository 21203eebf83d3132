// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"slices"
	"testing"

	"github.com/evenkeel/evenkeel/chaos/schedule"
)

// An agent that is healed waits for its source, so a source that is still away would keep the walk for good.
func TestSourceIsHealedFirst(t *testing.T) {
	for text, want := range map[string][]int{
		"source-away source + kill agent/a":                       {0, 1},
		"kill agent/a + source-away source":                       {1, 0},
		"stop agent/b + source-away source + link-down pod/extra": {1, 2, 0},
		"loss wire/a,b + term agent/b":                            {1, 0},
	} {
		s, err := schedule.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		all := make([]*injected, len(s[0]))
		for i := range all {
			all[i] = new(injected)
		}
		var got []int
		for _, i := range inHealingOrder(s[0], all) {
			got = append(got, slices.Index(all, i))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: healed in order %v, want %v", text, got, want)
		}
	}
}
