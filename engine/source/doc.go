// SPDX-License-Identifier: Apache-2.0

// Package source translates Kubernetes objects into the engine's model, for every source that has such objects: files
// today, an API server as well. It owns the meaning of their fields (defaults, conditions, hints, annotations), the
// slices that follow from a selector where no controller writes them, and the difference to what was last sent.
//
// A source feeds a State with objects as they come and go, asks it for the Change, hands that to the engine and
// commits it. The package reads and watches nothing, sends nothing and logs nothing: what deserves a person's
// attention is kept as a Warning with the object it belongs to.
//
// Package cases has the table of cases that every source has to pass.
package source
