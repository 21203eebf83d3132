// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"fmt"
	"time"
)

const (
	// makers is how many long documents are made at a time, and how many short ones. Of a node with 100,000 endpoints one is 17 MB, and as much again
	// while it is made; 20 at once took 1.1 GB.
	makers = 2
	// takers is how many clients may be taking a long document: it is in memory until they have it.
	takers = 4
	// takeTime is how long one may take for that.
	takeTime = 30 * time.Second
	// patience is how long a request waits for its turn: less than a client waits for its answer to begin.
	patience = 3 * time.Second
)

// turns are places for so many at a time.
type turns chan struct{}

// busyError says that all places are taken.
type busyError struct{ by int }

func (e *busyError) Error() string {
	return fmt.Sprintf("%d other requests are being answered: ask again in a moment", e.by)
}

// take waits for a place, but not for long, and returns what gives it back.
func (t turns) take(ctx context.Context) (leave func(), err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, &busyError{cap(t)})
	defer cancel()
	select {
	case t <- struct{}{}:
		return func() { <-t }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
