//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/* What reaches a workload, once per new connection. It only counts; this is where authorization belongs. */
#include "select.h"

SEC("sk_lookup")
int mesh_sk_lookup(struct bpf_sk_lookup *ctx)
{
	count(COUNT_INBOUND);
	return SK_PASS;
}

/* Messages between accelerated sockets. */
SEC("sk_msg")
int mesh_sk_msg(struct sk_msg_md *ctx)
{
	count(COUNT_MESSAGES);
	return SK_PASS;
}
