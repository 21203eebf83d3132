// SPDX-License-Identifier: Apache-2.0

//go:build control_in_place && !control_ignore_weights

package engine

const (
	ignoreWeights = false
	inPlace       = true
)
