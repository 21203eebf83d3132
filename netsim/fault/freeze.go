// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/evenkeel/evenkeel/netsim"
)

// Freeze freezes the cgroup of a process by the freezer of cgroup2 (cgroup.freeze, Linux 5.2). Unlike Stop the process
// cannot be woken by a signal; SIGKILL does end it.
type Freeze struct {
	Agent   *Agent         `json:"agent,omitempty"`
	Process netsim.Process `json:"process"`
	// Cgroup is its directory; Prepare finds it.
	Cgroup string `json:"cgroup"`
}

func (f *Freeze) String() string { return "freeze " + victim(f.Agent, f.Process) }

// Prepare finds the cgroup, and refuses one that this process is in or below.
func (f *Freeze) Prepare(context.Context) error {
	if err := find(f.Agent, &f.Process); err != nil {
		return err
	}
	root, err := mountPoint("")
	if err != nil {
		return err
	}
	path, _, err := cgroupOf(f.Process.PID, "")
	if err != nil {
		return err
	}
	own, _, err := cgroupOf(os.Getpid(), "")
	if err != nil {
		return err
	}
	if path == "/" || own == path || strings.HasPrefix(own, path+"/") {
		return fmt.Errorf("freeze cgroup %s: this process would be frozen with it", path)
	}
	f.Cgroup = filepath.Join(root, path)
	return nil
}

// Inject returns when the cgroup is frozen.
func (f *Freeze) Inject(ctx context.Context) error { return f.set(ctx, "1") }

// Heal returns when it is not frozen any more.
func (f *Freeze) Heal(ctx context.Context) error {
	err := f.set(ctx, "0")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (f *Freeze) set(ctx context.Context, value string) error {
	if err := os.WriteFile(filepath.Join(f.Cgroup, "cgroup.freeze"), []byte(value), 0); err != nil {
		return fmt.Errorf("freeze: %w", err)
	}
	return await(ctx, "cgroup.events says frozen "+value, func() (bool, error) {
		text, err := os.ReadFile(filepath.Join(f.Cgroup, "cgroup.events"))
		return bytes.Contains(text, []byte("frozen "+value)), err
	})
}

// Active counts the frozen processes.
func (f *Freeze) Active(context.Context) (uint64, error) {
	text, err := os.ReadFile(filepath.Join(f.Cgroup, "cgroup.events"))
	if err != nil {
		return 0, fmt.Errorf("look at cgroup: %w", err)
	}
	if !bytes.Contains(text, []byte("frozen 1")) {
		return 0, nil
	}
	processes, err := os.ReadFile(filepath.Join(f.Cgroup, "cgroup.procs"))
	if err != nil {
		return 0, fmt.Errorf("list processes: %w", err)
	}
	return uint64(bytes.Count(processes, []byte("\n"))), nil
}
