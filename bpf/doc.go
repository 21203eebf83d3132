// SPDX-License-Identifier: Apache-2.0

// Package bpf is the kernel side: the C sources, the object that is generated from them, and its typed Go form.
//
// It says what there is to load (Spec, Hooks), how maps are sized (Sizes), and what the types are that both sides
// share; the engine and the CNI plugin write maps with them. It never loads, pins or attaches anything: the package
// upgrade owns that.
package bpf
