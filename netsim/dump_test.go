// SPDX-License-Identifier: Apache-2.0

package netsim

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
)

// A dump that was interrupted is a part of what there is: it is read again, and never taken for the whole.
func TestWhole(t *testing.T) {
	interrupted := func(times int) func() ([]int, error) {
		n := 0
		return func() ([]int, error) {
			if n++; n <= times {
				return []int{1}, fmt.Errorf("dump: %w", netlink.ErrDumpInterrupted)
			}
			return []int{1, 2}, nil
		}
	}
	if got, err := Whole(interrupted(3)); err != nil || !slices.Equal(got, []int{1, 2}) {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := Whole(interrupted(1 << 20)); !errors.Is(err, netlink.ErrDumpInterrupted) || got != nil {
		t.Errorf("of one that never ends: %v, %v", got, err)
	}
	other := errors.New("other")
	if _, err := Whole(func() ([]int, error) { return nil, other }); !errors.Is(err, other) {
		t.Errorf("another error: %v", err)
	}
}
