// SPDX-License-Identifier: Apache-2.0

// Package doctor finds out whether this kernel and this process can carry the data plane, by doing each thing that it
// needs once: loading its programs, attaching them to a cgroup and a network namespace of their own, running them. The
// command doctor shows what it found. It leaves nothing behind and touches nothing that serves.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/report"
)

// Report is what was found.
type Report struct {
	Version string `json:"version"`
	// OK is whether everything that is needed is there.
	OK     bool    `json:"ok"`
	Kernel string  `json:"kernel"` // release, as uname -r has it
	Checks []Check `json:"checks"`
	// Others are programs of others where the data plane would be attached as well, or is.
	Others []Other `json:"others"`
}

// Check is one thing that was tried.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Needed bool   `json:"needed"`
	// Detail is what was seen, or why it failed.
	Detail string `json:"detail"`
	// Without says what its lack costs.
	Without string `json:"without"`
}

// Other is a program of somebody else on one of our hooks.
type Other struct {
	Hook    string `json:"hook"`
	Cgroup  string `json:"cgroup"`
	Program uint32 `json:"program"` // id
	Name    string `json:"name"`
	// Balancer is what it is a part of, if that is known to choose endpoints: attached before the data plane, it sees a
	// service's address first, and enrolment is refused.
	Balancer string `json:"balancer,omitempty"`
}

// Options say where the data plane is to be.
type Options struct {
	Dir    string // of the pins
	Cgroup string // empty: the root of cgroup2
}

// check is one thing to try.
type check struct {
	name    string
	needed  bool
	without string
	try     func() (detail string, err error)
}

// ErrNotRoot is returned without trying anything: every check would fail for that one reason.
var ErrNotRoot = errors.New("not root: run with sudo")

// memlockHint is what the library adds to EPERM: kernels of 5.11 and later do not count BPF memory by that limit.
const memlockHint = " (MEMLOCK may be too low, consider rlimit.RemoveMemlock)"

// Examine tries everything, whatever fails before.
func Examine(ctx context.Context, o Options) (*Report, error) {
	if unix.Geteuid() != 0 {
		return nil, ErrNotRoot
	}
	r := &Report{Version: report.Version, OK: true, Others: []Other{}}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return nil, fmt.Errorf("read the kernel's release: %w", err)
	}
	r.Kernel = unix.ByteSliceToString(name.Release[:])
	p := &patient{Options: o}
	defer p.close()
	for _, c := range slices.Concat(p.machine(r.Kernel), p.programs(), p.attachments()) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		detail, err := c.try()
		found := Check{Name: c.name, OK: err == nil, Needed: c.needed, Detail: detail, Without: c.without}
		if err != nil {
			found.Detail = strings.ReplaceAll(err.Error(), memlockHint, "")
			r.OK = r.OK && !c.needed
		}
		r.Checks = append(r.Checks, found)
	}
	r.Others = p.others()
	return r, nil
}
