// SPDX-License-Identifier: Apache-2.0

// Package ledger has a state map in six schemas and traffic that writes it and keeps books of every entry, so that what a
// migration lost, brought back or counted twice is known to the last update. It moves the map by the bridge, and in the
// ways in which other systems do it. Tests of package migrate and `evenkeel bench upgrade` are its callers; it knows
// maps and programs, and nothing of generations, pins or a mesh.
package ledger
