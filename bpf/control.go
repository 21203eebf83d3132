// SPDX-License-Identifier: Apache-2.0

//go:build !control_ignore_stamp && !control_miss_passes && !control_trust_slot

package bpf

// controls is 0 but in a build that makes one promise false on purpose, to show that its test can fail.
const controls = 0
