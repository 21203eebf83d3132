//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/* The life of TCP connections, counted. No user space is woken: a connection costs no context switch. */
#include "select.h"

static __always_inline void client_event(struct bpf_sock_ops *ctx, const struct flow *flow)
{
	switch (ctx->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
		break;
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		count(COUNT_ESTABLISHED);
		count_more(COUNT_HANDSHAKE_NS, bpf_ktime_get_boot_ns() - flow->start);
		break;
	case BPF_SOCK_OPS_STATE_CB: /* to BPF_TCP_CLOSE: the entry keeps the others back */
		if (ctx->args[0] == BPF_TCP_SYN_SENT || ctx->args[0] == BPF_TCP_SYN_RECV)
			count(COUNT_FAILED);
		else
			count(COUNT_CLOSED);
		if (ctx->args[0] == BPF_TCP_ESTABLISHED)
			count(COUNT_RESET);
		break;
	}
}

SEC("sockops")
int mesh_sock_ops(struct bpf_sock_ops *ctx)
{
	struct flow *flow = flow_of(ctx->sk);

	if (flow && flow->flags & FLOW_SERVICE)
		client_event(ctx, flow);
	else if (ctx->op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		count(COUNT_ACCEPTED);
	return PROCEED;
}
