// SPDX-License-Identifier: Apache-2.0

//go:build !profile

package stopwatch

import "errors"

// profile is in builds with the tag profile only: package runtime/pprof makes every process that it is linked into keep
// 1.5 MB for profiles that nobody takes, and an agent is one of them.
func (o Options) profile() (stop func() error, err error) {
	if o.CPUProfile != "" || o.HeapProfile != "" {
		return nil, errors.New("profiles: this program was built without them: go build -tags profile")
	}
	return func() error { return nil }, nil
}
