// SPDX-License-Identifier: Apache-2.0

package tamper

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"

	"github.com/evenkeel/evenkeel/netsim/flow"
)

// Relay is a relay in a place.
type Relay struct{ *flow.Process }

// Start runs `BINARY flow relay` in a place, to the servers at address to, and returns when it listens. The
// recording says when it did not run.
func Start(ctx context.Context, where flow.Place, binary string, recording string, to netip.Addr,
	seed uint64) (*Relay, error) {
	cmd := where.Command(ctx, binary, "flow", "relay", "--to", to.String(), "--seed", strconv.FormatUint(seed, 10))
	p, err := flow.Start("flow relay", cmd, nil, recording)
	if err != nil {
		return nil, err
	}
	return &Relay{p}, nil
}

// Do does wrong to every connection that passes, and returns to how many once it was done to all.
func (r *Relay) Do(o Order) (int, error) {
	answer, err := r.Ask(o.String())
	if err != nil {
		return 0, err
	}
	var n int
	if _, err := fmt.Sscanf(answer, sayDone+" %d", &n); err != nil {
		return 0, fmt.Errorf("flow relay says %q: %w", answer, err)
	}
	return n, nil
}
