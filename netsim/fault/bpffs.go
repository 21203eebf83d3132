// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Unmount takes the BPF file system of a whole lab away, and leaves at its place one that takes no pins: as where
// somebody has unmounted it, or never mounted it. What is pinned there lives until nobody has it open any more: an
// agent that keeps its directory open keeps all of it, until that agent ends (umount2(2), MNT_DETACH).
type Unmount struct {
	Agents []*Agent `json:"agents"` // of the lab
	Dir    string   `json:"dir"`    // of the lab's bpffs
	// Pins is how many there were.
	Pins int `json:"pins"`
}

func (u *Unmount) String() string { return "bpffs-unmounted " + u.Dir }

// Prepare makes sure that the lab has a bpffs of its own.
func (u *Unmount) Prepare(context.Context) error {
	var above unix.Stat_t
	var at unix.Stat_t
	err := errors.Join(unix.Stat(filepath.Dir(u.Dir), &above), unix.Stat(u.Dir, &at))
	if err != nil {
		return fmt.Errorf("look at %s: %w", u.Dir, err)
	}
	if above.Dev == at.Dev {
		return fmt.Errorf("%s is no mount: others would lose their pins", u.Dir)
	}
	pins, err := Pins(u.Dir)
	u.Pins = len(pins)
	return err
}

// Inject unmounts it.
func (u *Unmount) Inject(context.Context) error {
	if err := unix.Unmount(u.Dir, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", u.Dir, err)
	}
	if err := unix.Mount(notBPF, u.Dir, "tmpfs", unix.MS_RDONLY, "size=4k,mode=0755"); err != nil {
		return fmt.Errorf("mount tmpfs at %s: %w", u.Dir, err)
	}
	if err := unix.Mount("", u.Dir, "", unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make %s private: %w", u.Dir, err)
	}
	return nil
}

// notBPF is the source of the mount that is in the way; for people.
const notBPF = "evenkeel-fault"

func fileSystem(dir string) (int64, error) {
	var fs unix.Statfs_t
	err := unix.Statfs(dir, &fs)
	if errors.Is(err, unix.ENOENT) {
		return 0, nil // the lab is gone
	}
	if err != nil {
		return 0, fmt.Errorf("look at %s: %w", dir, err)
	}
	return fs.Type, nil
}

// Heal mounts a bpffs, an empty one, and restarts the agents: what they have open is of the old one.
func (u *Unmount) Heal(ctx context.Context) error {
	at, err := fileSystem(u.Dir)
	if err != nil || at == 0 {
		return err
	}
	if at == unix.TMPFS_MAGIC {
		if err := unix.Unmount(u.Dir, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount tmpfs at %s: %w", u.Dir, err)
		}
	}
	var above, own unix.Stat_t
	if err := errors.Join(unix.Stat(filepath.Dir(u.Dir), &above), unix.Stat(u.Dir, &own)); err != nil {
		return fmt.Errorf("look at %s: %w", u.Dir, err)
	}
	if above.Dev != own.Dev {
		return u.start(ctx, (*Agent).start) // healed before
	}
	if err := unix.Mount("evenkeel-sim", u.Dir, "bpf", 0, "mode=0755"); err != nil {
		return fmt.Errorf("mount bpffs at %s: %w", u.Dir, err)
	}
	if err := unix.Mount("", u.Dir, "", unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make %s private: %w", u.Dir, err)
	}
	return u.start(ctx, (*Agent).restart)
}

func (u *Unmount) start(ctx context.Context, how func(*Agent, context.Context) error) error {
	var errs []error
	for _, a := range u.Agents {
		errs = append(errs, how(a, ctx))
	}
	return errors.Join(errs...)
}

// Active counts the pins that cannot be found any more.
func (u *Unmount) Active(context.Context) (uint64, error) {
	at, err := fileSystem(u.Dir)
	if err != nil || at == unix.BPF_FS_MAGIC {
		return 0, err
	}
	return uint64(max(1, u.Pins)), nil
}
