// SPDX-License-Identifier: Apache-2.0

// Command evenkeel-cni is the chained CNI plugin: a container runtime starts it for each pod, behind the plugin that
// makes the pod's interfaces. It composes cni and upgrade, and holds no logic of its own.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/evenkeel/evenkeel/cmd/internal/enrolment"
	"github.com/evenkeel/evenkeel/cni"
	"github.com/evenkeel/evenkeel/engine/enrol"
	"github.com/evenkeel/evenkeel/upgrade"
)

// release is set by the build.
var release = "unknown"

func main() {
	p := &cni.Plugin{Plane: plane{}, Stdout: os.Stdout, Stderr: os.Stderr, About: "evenkeel-cni " + release +
		": a chained CNI plugin, which a container runtime starts; 'evenkeel cni install' puts it there"}
	os.Exit(p.Run(context.Background()))
}

// plane is the pinned data plane of this node.
type plane struct{}

// patience is how long an upgrade that is under way may keep a pod waiting.
const patience = 4 * time.Second

func (plane) Open(ctx context.Context, dir string) (enrol.Options, func() error, error) {
	if err := present(dir); err != nil {
		return enrol.Options{}, nil, err
	}
	o, closeAll, err := enrolment.Open(ctx, dir, patience)
	return o, closeAll, serving(err)
}

func (plane) Lacking(dir string) ([]string, error) {
	if err := present(dir); err != nil {
		return nil, err
	}
	state, err := upgrade.Inspect(dir)
	if err != nil {
		return nil, serving(err)
	}
	if state.Serve == 0 {
		return nil, serving(upgrade.ErrNoGeneration)
	}
	var lacking []string
	for _, d := range state.Damages {
		lacking = append(lacking, d.String())
	}
	for _, h := range state.Hooks {
		if !h.OK {
			lacking = append(lacking, fmt.Sprintf("hook %s is not attached", h.Name))
		}
	}
	return lacking, nil
}

// present tells a directory that is not there, as after a boot before any agent, from one that cannot be opened.
func present(dir string) error {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return serving(upgrade.ErrNotInstalled)
	}
	return nil
}

func serving(err error) error {
	if errors.Is(err, upgrade.ErrNotInstalled) || errors.Is(err, upgrade.ErrNoGeneration) {
		return fmt.Errorf("%w: %w", cni.ErrNotServing, err)
	}
	return err
}
