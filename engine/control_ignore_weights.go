// SPDX-License-Identifier: Apache-2.0

//go:build control_ignore_weights

package engine

const (
	ignoreWeights = true
	inPlace       = false
)
