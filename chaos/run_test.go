// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"testing"
	"time"

	"github.com/evenkeel/evenkeel/netsim/flow"
)

// What shows its own instant only is asked every 10 ms in every run, and who says how often is heard.
func TestUnhurried(t *testing.T) {
	given := append(everyFlow(), flow.Spec{Name: "own", Kind: "udp", Period: flow.Duration(time.Millisecond)})
	kinds := map[string]flow.Kind{}
	for _, k := range flow.Kinds() {
		kinds[k.Name] = k
	}
	for i, s := range unhurried(given) {
		kind := kinds[s.Kind]
		period := time.Duration(s.Period)
		if period == 0 {
			period = kind.Period
		}
		if limit := 10 * time.Millisecond; (kind.Attempts() || kind.Protocol.Network == "udp") && period > limit {
			t.Errorf("%s: every %v", s.Name, period)
		}
		if given[i].Period != 0 && s.Period != given[i].Period {
			t.Errorf("%s: every %v instead of %v", s.Name, s.Period, given[i].Period)
		}
	}
}
