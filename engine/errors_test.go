// SPDX-License-Identifier: Apache-2.0

package engine

import "errors"

// flatten returns the errors that are joined in err.
func flatten(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok { // the top of what Apply returned
		var all []error
		for _, e := range joined.Unwrap() {
			all = append(all, flatten(e)...)
		}
		return all
	}
	return []error{err}
}

// onlyConflicts reports whether err says nothing but that addresses are taken.
func onlyConflicts(err error) bool {
	for _, e := range flatten(err) {
		if !errors.Is(e, ErrConflict) {
			return false
		}
	}
	return true
}
