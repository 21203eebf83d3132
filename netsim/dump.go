// SPDX-License-Identifier: Apache-2.0

package netsim

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
)

// Whole repeats a dump of links or addresses that the kernel says was changed while it was read (NLM_F_DUMP_INTR): a
// namespace may be losing pods while somebody looks around in it.
func Whole[T any](dump func() ([]T, error)) ([]T, error) {
	const attempts = 10
	for range attempts {
		all, err := dump()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return all, err
		}
	}
	return nil, fmt.Errorf("it changed during each of %d attempts: %w", attempts, netlink.ErrDumpInterrupted)
}
