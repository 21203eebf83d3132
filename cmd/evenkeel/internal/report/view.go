// SPDX-License-Identifier: Apache-2.0

package report

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cilium/ebpf"

	"github.com/evenkeel/evenkeel/cmd/evenkeel/internal/plane"
	"github.com/evenkeel/evenkeel/cmd/internal/enrolment"
	"github.com/evenkeel/evenkeel/engine"
	"github.com/evenkeel/evenkeel/engine/enrol"
	"github.com/evenkeel/evenkeel/upgrade"
)

// View is access to a data plane for reading: the agent's own, or one opened from the pins.
type View struct {
	Dir     string
	Frozen  map[string]*ebpf.Map
	Serving *upgrade.Generation
	Sizes   map[string]uint32 // that its release has
	Pods    *upgrade.Pods
	Engine  *engine.Engine
	Word    func() upgrade.Word

	// Agent is nil for a view of the pins. It returns what the agent says of itself.
	Agent func() (Agent, []Source)
	// Outside says why pods that have to be in the mesh are not, by name; nil where nothing decides that.
	Outside func() map[string]string
	// Untold is why the CNI plugin does not know what was decided about pods to come; nil likewise.
	Untold func() error
	// Differs is set if the programs that serve are of another release than the agent.
	Differs bool
}

// lockTime is how long a reader waits for a change of phase to end.
const lockTime = 2 * time.Second

// OpenPins opens a view without an agent: names that only the sources have are missing in it. While it is open no phase
// changes, so it is closed soon, by the function returned.
func OpenPins(ctx context.Context, dir string) (*View, func(), error) {
	ctx, cancel := context.WithTimeoutCause(ctx, lockTime, errors.New("an upgrade is under way: try again"))
	defer cancel()
	w, err := upgrade.OpenWriter(ctx, dir)
	if err != nil {
		return nil, nil, err
	}
	serving, err := w.Serving()
	if err != nil {
		w.Close()
		return nil, nil, err
	}
	maps, err := plane.Maps(w.Frozen, serving)
	if err != nil {
		w.Close()
		return nil, nil, fmt.Errorf("open %s: %w", dir, err)
	}
	sizes, err := w.Sizes()
	if err != nil {
		w.Close()
		return nil, nil, fmt.Errorf("open %s: %w", dir, err)
	}
	// An engine adopts what is there and writes nothing before a source speaks. Here none ever does.
	e, err := engine.New(ctx, engine.Options{
		Maps: maps, Sizes: sizes, Sources: []string{"none"}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		w.Close()
		return nil, nil, fmt.Errorf("open %s: %w", dir, err)
	}
	v := &View{Dir: dir, Frozen: w.Frozen, Serving: serving, Sizes: sizes, Pods: w.Pods, Engine: e, Word: w.Word}
	return v, func() { w.Close() }, nil
}

// enrolment is what package enrol reads through.
func (v *View) enrolment() (enrol.Options, error) {
	maps, err := enrolment.Maps(v.Frozen, v.Sizes)
	return enrol.Options{Maps: maps, Links: enrolment.Links(v.Pods)}, err
}
