// SPDX-License-Identifier: Apache-2.0

// Package fault breaks things on purpose, and puts them right again: processes, control plane, BPF state, topology and
// wires of a lab. Each fault is injected once, proves by a counter that it has bitten, and can be healed at any time,
// by any process, twice.
//
// A suite gives [Options.Inject] a fault and a way to register its healing, which happens first:
//
//	f, err := fault.Build(lab, spec)            // "stop agent/a", by name
//	_, err = options.Inject(ctx, register, f)   // register: DeferCleanup, t.Cleanup
//
// Healing a fault that did nothing is an error, [ErrInert]: a spec that shows that traffic survives a fault which was
// none shows nothing.
//
// Should the process that injects a fault die, or forget it, a process of its own heals it: the dead man; see [Main].
//
// It runs built binaries and reads the kernel. It never imports what it breaks.
package fault
