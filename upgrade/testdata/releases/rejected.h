// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#pragma once

/* Broken: what may be NULL is read. */
SEC("sockops")
int mesh_sock_ops(struct bpf_sock_ops *ctx)
{
	struct flow *flow = bpf_sk_storage_get(&sockets, ctx->sk, 0, 0);

	return flow->flags;
}
