// SPDX-License-Identifier: Apache-2.0

// Package expedite shortens the kernel's RCU grace periods while many programs are attached or detached.
//
// Attaching a program to tcx, and detaching it, ends in synchronize_rcu() with the RTNL held (kernel/bpf/tcx.c,
// tcx_entry_sync, Linux 6.6 to 6.18): about 13 ms, one after the other, whoever asks. A thousand pods take that a
// thousand times. With /sys/kernel/rcu_expedited at 1 (Documentation/RCU in the kernel's tree) the same wait asks every
// CPU by an interrupt and takes some 50 us, at the price of those interrupts: right for a second, wrong for good.
package expedite

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const (
	expedited = "/sys/kernel/rcu_expedited"
	normal    = "/sys/kernel/rcu_normal"
)

// Switch is the kernel's switch, and where its users meet.
type Switch struct {
	// Expedited and Normal are files that hold a number, 0 for no. If Normal is not 0 the node's owner wants no such
	// interrupts, and nothing is done.
	Expedited, Normal string
	// Dir is a directory of this machine that a reboot empties. It is made, and left behind with two small files.
	Dir string
}

// Kernel is the switch of this machine.
func Kernel() Switch {
	return Switch{Expedited: expedited, Normal: normal, Dir: "/run/evenkeel-expedite"}
}

// During does something while grace periods are short: until it returns, or the process ends and the next user of the
// machine has ended; with several users, until the last one has. What was set before comes back then; a switch that
// somebody else has set is left alone. Where the switch is missing, may not be written, or cannot be noted in Dir, it
// is done all the same, and takes longer: nothing depends on it.
func (s Switch) During(do func() error) error {
	end, err := s.begin()
	if err != nil {
		return do()
	}
	return errors.Join(do(), end())
}

// begin is the first half of During, end the second.
//
//	users    shared flock: somebody needs short grace periods
//	ours     exclusive flock: held while switching. Content "1": the switch is at 1 because of us
func (s Switch) begin() (end func() error, err error) {
	if value, err := os.ReadFile(s.Normal); err == nil && !zero(value) {
		return func() error { return nil }, nil
	}
	switched, err := os.OpenFile(s.Expedited, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer switched.Close()
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return nil, err
	}
	users, err := os.OpenFile(filepath.Join(s.Dir, "users"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = s.exclusively(func(ours *os.File) error {
		if err := flock(users, unix.LOCK_SH); err != nil {
			return err
		}
		now, err := os.ReadFile(s.Expedited)
		if err != nil || !zero(now) { // somebody else's, or ours for another user
			return err
		}
		// Noted first: killed between the two this leaves a note of what was not done, and the next user that switches
		// makes it true. The other way round nobody would ever switch back.
		if _, err := ours.WriteAt([]byte("1"), 0); err != nil {
			return err
		}
		if _, err = switched.WriteString("1"); err != nil {
			err = errors.Join(err, ours.Truncate(0))
		}
		return err
	})
	if err != nil {
		users.Close()
		return nil, err
	}
	return func() error {
		defer users.Close()
		if err := s.exclusively(func(ours *os.File) error { return s.end(users, ours) }); err != nil {
			return fmt.Errorf("give grace periods their length back, echo 0 > %s does it: %w", s.Expedited, err)
		}
		return nil
	}, nil
}

// end switches back if no other user is left, dead ones included: their locks have gone with them.
func (s Switch) end(users, ours *os.File) error {
	if err := flock(users, unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return nil
	} else if err != nil {
		return err
	}
	note := make([]byte, 1)
	if n, _ := ours.ReadAt(note, 0); n == 0 || zero(note) {
		return nil
	}
	if err := os.WriteFile(s.Expedited, []byte("0"), 0); err != nil {
		return err
	}
	return ours.Truncate(0)
}

func (s Switch) exclusively(do func(ours *os.File) error) error {
	ours, err := os.OpenFile(filepath.Join(s.Dir, "ours"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer ours.Close()
	if err := flock(ours, unix.LOCK_EX); err != nil {
		return err
	}
	return do(ours)
}

func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			if err != nil {
				return &os.PathError{Op: "lock", Path: f.Name(), Err: err}
			}
			return nil
		}
	}
}

func zero(value []byte) bool {
	value = bytes.TrimSpace(value)
	return len(value) == 0 || string(value) == "0"
}
