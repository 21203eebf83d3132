// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"context"
	"fmt"
	"os"

	"github.com/evenkeel/evenkeel/netsim/fault/supervisor"
)

// The processes that faults need beside the one that injects them.
const (
	deadManCommand   = "dead-man"
	superviseCommand = "supervise"
	hogCommand       = "hog"
)

// Main runs the processes that faults need: the dead man, the supervisor and its shim, one that uses up memory. A binary
// that injects faults serves it under arguments of its own; see Self in [Options] and [Agent].
func Main(ctx context.Context, args []string) error {
	if len(args) > 0 {
		switch args[0] {
		case deadManCommand:
			return watch(ctx, os.Stdin, os.Stdout)
		case superviseCommand:
			return supervisor.Main(args[1:])
		case hogCommand:
			return hog(args[1:])
		}
	}
	return fmt.Errorf("fault: %q is none of the processes %s, %s, %s", args, deadManCommand, superviseCommand, hogCommand)
}
