// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/evenkeel/evenkeel/netsim/fault/supervisor"
	"github.com/evenkeel/evenkeel/netsim/fault/wire"
)

// The processes that faults need beside the one that injects them.
const (
	deadManCommand   = "dead-man"
	superviseCommand = "supervise"
	hogCommand       = "hog"
	wireCommand      = "wire"
)

// Main runs the processes that faults need: the dead man, the supervisor and its shim, those that use up
// memory and spoil wires. A binary
// that injects faults serves it under arguments of its own; see Self in [Options] and [Agent].
func Main(ctx context.Context, args []string) error {
	if len(args) > 0 {
		switch args[0] {
		case deadManCommand:
			return watch(context.WithoutCancel(ctx), os.Stdin, os.Stdout) // it heals also when it is told to end
		case superviseCommand:
			return supervisor.Main(args[1:])
		case hogCommand:
			return hog(args[1:])
		case wireCommand:
			return spoil(ctx, args[1:])
		}
	}
	return fmt.Errorf("fault: %q is none of the processes %s, %s, %s, %s", args, deadManCommand, superviseCommand,
		hogCommand, wireCommand)
}

// spoil is the process that wires are spoiled by.
func spoil(ctx context.Context, args []string) error {
	var c wire.Config
	if len(args) != 1 {
		return errors.New("fault: wire needs a configuration")
	}
	if err := json.Unmarshal([]byte(args[0]), &c); err != nil {
		return fmt.Errorf("fault: wire: %w", err)
	}
	return wire.Run(ctx, c, os.Stdin, os.Stdout)
}
