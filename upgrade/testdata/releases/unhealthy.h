// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#pragma once

/* Broken, and only traffic can tell: every third connection is refused. */
SEC("cgroup/connect4")
int mesh_connect4(struct bpf_sock_addr *ctx)
{
	struct selection s = {.key.address = address_mapped(ctx->user_ip4)};

	if (bpf_get_prandom_u32() % 3 == 0) {
		count(REFUSED_NO_ENDPOINT);
		return turn_away();
	}
	if (connect_select(ctx, &s) != OUTCOME_SELECTED)
		return PROCEED;
	ctx->user_ip4 = s.address.word[3];
	ctx->user_port = s.port;
	return PROCEED;
}
