// SPDX-License-Identifier: Apache-2.0

// Package migrate moves the entries of one map into another, of another layout, while programs go on writing them, and
// loses none. It has the C that a data plane includes for each such map (state.h), puts the bodies of a bridge into the
// programs of a release when they are loaded (link.go), and drives the copier. It knows maps and object files, and
// nothing of pins, generations or which of them serves: package upgrade has the order in which all this happens.
//
// docs/design/upgrade.md says why it loses nothing.
package migrate
