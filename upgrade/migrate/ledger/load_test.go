// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"fmt"
	"os"
	"testing"
)

func needKernel(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("this test needs root")
	}
	t.Skip("needs root")
}

// Every release can be bridged to every other, over up to five steps, and the kernel takes the programs.
func TestEveryBridgeLoads(t *testing.T) {
	for from := 1; from <= Schemas; from++ {
		b := mustBed(t, Options{Schema: from, Keys: 1024})
		for to := 1; to <= Schemas; to++ {
			t.Run(fmt.Sprintf("%d to %d", from, to), func(t *testing.T) { b.mustCross(t, to) })
		}
	}
}
