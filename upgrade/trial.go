// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/cilium/ebpf"
)

// try loads a release a second time, with maps of its own, and has it answer what it is asked.
func (o *object) try(ctx context.Context) error {
	alone := *o
	alone.spec = o.spec.Copy()
	const few = 64
	for name, m := range alone.spec.Maps {
		if m.Type != ebpf.ProgramArray && !internal(name) {
			m.MaxEntries = min(m.MaxEntries, few)
		}
	}
	if err := alone.configure(alone.spec, 1); err != nil {
		return err
	}
	maps.DeleteFunc(alone.spec.Programs, func(name string, _ *ebpf.ProgramSpec) bool {
		isEntry := func(h Hook) bool { return h.Entry == name }
		return !slices.Contains(o.programs(), name) && !slices.ContainsFunc(o.Hooks, isEntry)
	})
	maps.DeleteFunc(alone.spec.Maps, func(name string, _ *ebpf.MapSpec) bool {
		return !o.common(name) && !slices.Contains(o.own(), name) && !internal(name)
	})
	loaded, err := ebpf.NewCollection(alone.spec)
	if err != nil {
		return fmt.Errorf("load object: %w", err)
	}
	defer loaded.Close()
	if o.Trial == nil {
		return nil
	}
	if err := o.Trial(ctx, loaded); err != nil {
		return fmt.Errorf("trial: %w", err)
	}
	return nil
}
