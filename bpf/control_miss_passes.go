// SPDX-License-Identifier: Apache-2.0

//go:build control_miss_passes

package bpf

const controls = uint32(MeshControlCONTROL_MISS_PASSES)
