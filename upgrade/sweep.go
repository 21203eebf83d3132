// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"context"
	"fmt"
)

// sweepFor makes numbers that come round safe to be stamped.
func (s *Store) sweepFor(_ context.Context, numbers []uint16) error {
	last := s.Last()
	for _, n := range numbers {
		if Sweep(last, n) {
			return fmt.Errorf("the numbers of generations come round at %d", n)
		}
		last = n
	}
	return nil
}
