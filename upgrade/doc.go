// SPDX-License-Identifier: Apache-2.0

// Package upgrade owns the pinned state of a data plane: who may change it, how it comes to be, how another process
// adopts it, and how it goes. It knows hooks, programs, maps and generations, and nothing of what they are for.
//
// The agent calls [Open] and keeps the [Store] for its lifetime. Short-lived processes, such as a CNI plugin, call
// [OpenWriter]. [Inspect] reads without a lock and [Uninstall] is the only thing that removes what serves. The package
// never decides what traffic does, never writes an entry of a map of the data plane, and never cleans up by itself:
// closing a store or being killed leaves the data plane exactly as it is.
//
// The tree, on a BPF file system (which refuses dots in names):
//
//	DIR/                  flock on it is the lease
//	  super               the word that says which generation serves; see word.h
//	  writers/            empty; flock: shared by processes that write maps, exclusive for phase changes
//	  maps/NAME           maps of frozen layout: shared by all generations and by the entry programs
//	  calls/HOOK          prog arrays; generation n owns slots Base(n) to Base(n)+15, the first is its main program
//	  entries/HOOK        entry programs: attached once, never changed
//	  links/HOOK          what attaches an entry program for the whole node
//	  links/pods/ID/HOOK  what attaches an entry program to one pod
//	  gen/N/{maps,progs}  one generation; built as gen/N_new, published by rename, on its way out as gen/N_dead
//	  current             symbolic link for people; never consulted
//
// docs/design/pinned-state.md says why it is so and how each part of it fails.
package upgrade
