// SPDX-License-Identifier: Apache-2.0

//go:build control_ignore_stamp

package bpf

const controls = uint32(MeshControlCONTROL_IGNORE_STAMP)
