// SPDX-License-Identifier: Apache-2.0

//go:build control_trust_slot

package bpf

const controls = uint32(MeshControlCONTROL_TRUST_SLOT)
