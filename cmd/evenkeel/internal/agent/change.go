// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"

	"github.com/evenkeel/evenkeel/engine"
)

// apply hands a change to the engine. What concerns single objects the engine remembers, shows and tries again, so the
// source need not; only what concerns all of them goes back to it.
func (a *agent) apply(ctx context.Context, source string, c engine.Change) error {
	err := a.engine.Apply(ctx, source, c)
	if len(c.Services)+len(c.Slices)+len(c.Workloads) >= burstSize {
		select {
		case a.burst <- struct{}{}:
		default: // it has been told
		}
	}
	if len(c.Workloads)+len(c.Namespaces) > 0 {
		select {
		case a.stirred <- struct{}{}:
		default:
		}
	}
	if err == nil {
		return nil
	}
	concerned, rest := objectErrors(err)
	for _, e := range concerned[:min(len(concerned), maxLogged)] {
		a.Log.Warn("not applied as a whole", "source", source, "err", e)
	}
	if more := len(concerned) - maxLogged; more > 0 {
		a.Log.Warn("more objects were not applied as a whole, see status", "source", source, "count", more)
	}
	return rest
}

// maxLogged is how many objects of one change are named in the log.
const maxLogged = 10

// objectErrors takes the errors about single objects out of what Apply returned.
func objectErrors(err error) (objects []*engine.ObjectError, rest error) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			o, r := objectErrors(e)
			objects, rest = append(objects, o...), errors.Join(rest, r)
		}
		return objects, rest
	}
	var object *engine.ObjectError
	if errors.As(err, &object) {
		return []*engine.ObjectError{object}, nil
	}
	return nil, err
}
