// SPDX-License-Identifier: Apache-2.0

//go:build !control_ignore_weights && !control_in_place

package engine

// Controls are false but in a build that makes one promise false on purpose, to show that its test can fail.
const (
	ignoreWeights = false // every endpoint counts the same
	inPlace       = false // records are rewritten where they can be read
)
