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
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Cgroup removes a cgroup with all below it and makes it again under the same path, as a container runtime or service
// manager may. Programs that were attached to it are attached to nothing then, and never heal by themselves. Its
// processes wait in another cgroup meanwhile.
type Cgroup struct {
	Agent *Agent `json:"agent"`
	Path  string `json:"path"`
	Inode uint64 `json:"inode"`
	// Below are the cgroups below it, relative, each after those that it is in.
	Below []string `json:"below"`
}

func (c *Cgroup) String() string { return "cgroup-recreated " + c.Path }

// aside is where its processes wait, in cgroups of the same names.
func (c *Cgroup) aside() string { return c.Path + ".aside" }

// Prepare finds the cgroup and what is below.
func (c *Cgroup) Prepare(context.Context) (err error) {
	if c.Inode, err = inodeOf(c.Path); err != nil {
		return err
	}
	if c.Inode == 0 {
		return fmt.Errorf("cgroup %s: %w", c.Path, fs.ErrNotExist)
	}
	c.Below = nil
	return filepath.WalkDir(c.Path, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			var name string
			name, err = filepath.Rel(c.Path, path)
			c.Below = append(c.Below, name)
		}
		return err
	})
}

// Inject returns when it has been made again and its processes are back.
func (c *Cgroup) Inject(ctx context.Context) error {
	if err := c.make(c.aside()); err != nil {
		return err
	}
	if err := c.move(ctx, c.Path, c.aside()); err != nil {
		return err
	}
	for _, name := range slices.Backward(c.Below) {
		if err := unix.Rmdir(filepath.Join(c.Path, name)); err != nil {
			return fmt.Errorf("remove cgroup %s: %w", filepath.Join(c.Path, name), err)
		}
	}
	return c.back(ctx)
}

// back makes what is missing and moves the processes back.
func (c *Cgroup) back(ctx context.Context) error {
	if err := c.make(c.Path); err != nil {
		return err
	}
	if err := c.move(ctx, c.aside(), c.Path); err != nil {
		return err
	}
	for _, name := range slices.Backward(c.Below) {
		if err := unix.Rmdir(filepath.Join(c.aside(), name)); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("remove cgroup %s: %w", filepath.Join(c.aside(), name), err)
		}
	}
	return nil
}

func (c *Cgroup) make(root string) error {
	for _, name := range c.Below {
		if err := unix.Mkdir(filepath.Join(root, name), 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("make cgroup %s: %w", filepath.Join(root, name), err)
		}
	}
	return nil
}

// move moves all processes, also those that are started meanwhile.
func (c *Cgroup) move(ctx context.Context, from, to string) error {
	for _, name := range c.Below {
		source, target := filepath.Join(from, name), filepath.Join(to, name)
		err := await(ctx, "no process is in "+source, func() (bool, error) {
			text, err := os.ReadFile(filepath.Join(source, "cgroup.procs"))
			if errors.Is(err, fs.ErrNotExist) {
				return true, nil
			}
			if err != nil {
				return false, fmt.Errorf("list processes: %w", err)
			}
			for _, pid := range strings.Fields(string(text)) {
				if pid == "0" { // as a process shows that cannot be seen from here; written, it is this one
					return false, fmt.Errorf("%s has a process of another PID namespace", source)
				}
				// A process may end at any time: ESRCH.
				err := os.WriteFile(filepath.Join(target, "cgroup.procs"), []byte(pid), 0)
				if err != nil && !errors.Is(err, unix.ESRCH) {
					return false, fmt.Errorf("move process: %w", err)
				}
			}
			events, err := os.ReadFile(filepath.Join(source, "cgroup.procs"))
			return len(bytes.TrimSpace(events)) == 0, err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Heal makes sure that the cgroup and its processes are there, and restarts the agent, which has to attach anew. Where
// the cgroup is the old one, nothing was done to it.
func (c *Cgroup) Heal(ctx context.Context) error {
	inode, err := inodeOf(c.Path)
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Dir(c.Path)); errors.Is(err, fs.ErrNotExist) {
		return nil // the lab is gone
	}
	if err := c.back(ctx); err != nil {
		return err
	}
	if inode == c.Inode {
		return c.Agent.start(ctx)
	}
	return c.Agent.restart(ctx)
}

// Active is 1 if the cgroup is gone, or was and has been made again.
func (c *Cgroup) Active(context.Context) (uint64, error) { return wasRemoved(c.Path, c.Inode) }
