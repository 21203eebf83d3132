// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/netsim"
)

// Descriptors takes all free file descriptors from a process: its limit (RLIMIT_NOFILE) is lowered to the first number
// that is free, so whatever needs a new one fails with EMFILE until the process closes a lower one.
type Descriptors struct {
	Agent   *Agent         `json:"agent,omitempty"`
	Process netsim.Process `json:"process"`
	Limit   uint64         `json:"limit"` // soft limit before
	Lowered uint64         `json:"lowered"`
}

func (d *Descriptors) String() string { return "descriptors " + victim(d.Agent, d.Process) }

// Prepare notes the limit.
func (d *Descriptors) Prepare(context.Context) error {
	if err := find(d.Agent, &d.Process); err != nil {
		return err
	}
	limit, err := d.limit()
	d.Limit = limit.Cur
	return err
}

func (d *Descriptors) limit() (limit unix.Rlimit, err error) {
	if err := unix.Prlimit(d.Process.PID, unix.RLIMIT_NOFILE, nil, &limit); err != nil {
		return limit, fmt.Errorf("read limit of process %d: %w", d.Process.PID, err)
	}
	return limit, nil
}

func (d *Descriptors) set(soft uint64) error {
	limit, err := d.limit()
	if err != nil {
		return err
	}
	limit.Cur = soft
	if err := unix.Prlimit(d.Process.PID, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		return fmt.Errorf("set limit of process %d: %w", d.Process.PID, err)
	}
	return nil
}

// free returns the lowest number that is no descriptor of the process, and how many descriptors there are.
func (d *Descriptors) free() (lowest, count uint64, err error) {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.Process.PID))
	if err != nil {
		return 0, 0, fmt.Errorf("list descriptors: %w", err)
	}
	used := make(map[uint64]bool, len(entries))
	for _, entry := range entries {
		if n, err := strconv.ParseUint(entry.Name(), 10, 64); err == nil {
			used[n] = true
		}
	}
	for used[lowest] {
		lowest++
	}
	return lowest, uint64(len(entries)), nil
}

// Inject lowers the limit.
func (d *Descriptors) Inject(context.Context) error {
	lowest, _, err := d.free()
	if err != nil {
		return err
	}
	d.Lowered = lowest
	return d.set(lowest)
}

// Heal restores it.
func (d *Descriptors) Heal(context.Context) error {
	if err := d.set(d.Limit); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	return nil
}

// Active counts the descriptors that the process has, 0 if its limit is not the lowered one any more.
func (d *Descriptors) Active(context.Context) (uint64, error) {
	limit, err := d.limit()
	if err != nil || limit.Cur != d.Lowered {
		return 0, err
	}
	_, count, err := d.free()
	return count, err
}
