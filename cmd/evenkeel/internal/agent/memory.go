// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"time"

	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/footprint"
)

const (
	// burstSize is how many objects in one change leave so much garbage behind that it is collected at once.
	burstSize = 500
	// burstRest is how long work has to rest before.
	burstRest = time.Second
)

// giveMemoryBack returns to the kernel what reading many objects took. Left to itself the runtime keeps it: its next
// collection comes when the heap has grown, which that of an agent with nothing to do never does.
func (a *agent) giveMemoryBack(ctx context.Context) error {
	rest := time.NewTimer(burstRest) // opening the data plane was a burst, too
	defer rest.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.burst:
			rest.Reset(burstRest)
		case <-rest.C:
			if err := footprint.Release(); err != nil {
				a.Log.Debug("memory is not given back", "err", err)
			}
		}
	}
}
