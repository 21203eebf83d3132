// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#pragma once

/* Broken: the program of one hook is of another's attach type, which the kernel would let run there. */
SEC("cgroup/connect6")
int mesh_connect4(struct bpf_sock_addr *ctx)
{
	return PROCEED;
}
