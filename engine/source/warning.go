// SPDX-License-Identifier: Apache-2.0

package source

import (
	"cmp"
	"fmt"

	"github.com/evenkeel/evenkeel/engine/manifest"
)

// Warning is something about an object that was understood, but not done: the rest of the object is in effect.
type Warning struct {
	Key    manifest.Key
	Origin string
	Text   string
}

// String returns "web.yaml:12: Service shop/web: text".
func (w Warning) String() string { return fmt.Sprintf("%s: %s: %s", w.Origin, w.Key, w.Text) }

// notes collects the warnings of one object while it is translated.
type notes []string

func (n *notes) add(format string, args ...any) { *n = append(*n, fmt.Sprintf(format, args...)) }

func compareWarnings(a, b Warning) int {
	return cmp.Or(
		cmp.Compare(a.Key.Kind, b.Key.Kind),
		cmp.Compare(a.Key.Namespace, b.Key.Namespace),
		cmp.Compare(a.Key.Name, b.Key.Name),
		cmp.Compare(a.Text, b.Text),
	)
}
