//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/* recvmsg() and getpeername(): the application is shown the service that it dialled, never the endpoint. */
#include "peers.h"

/* What to show instead of the address in *a and *port; false if they are to be shown as they are. */
static __always_inline bool shown_as(struct bpf_sock_addr *ctx, struct address *a, __be16 *port)
{
	struct flow *flow = flow_of(ctx->sk);
	const struct mapping *m = NULL;
	struct peer_key key;
	struct peer *peer;

	if (!flow)
		return false;
	/* dst_port is 0 on a socket that is no longer connected: then what connection says is over. */
	if (flow->flags & FLOW_SERVICE && ctx->sk->dst_port && mapping_leads_to(&flow->connection, a, *port))
		m = &flow->connection;
	else if (flow->flags & FLOW_SHOWN && mapping_leads_to(&flow->sent, a, *port))
		m = &flow->sent;
	if (m) {
		*a = m->dialled;
		*port = m->dialled_port;
		return true;
	}
	if (!(flow->flags & FLOW_PEERS))
		return false;
	key = peer_key(bpf_get_socket_cookie(ctx), a, *port, PEER_SERVICE);
	peer = peers_get(&key);
	if (!peer)
		return false;
	*a = peer->address;
	*port = peer->port;
	return true;
}

SEC("cgroup/recvmsg4")
int mesh_recvmsg4(struct bpf_sock_addr *ctx)
{
	struct address a = address_mapped(ctx->user_ip4);
	__be16 port = ctx->user_port;

	if (shown_as(ctx, &a, &port)) {
		ctx->user_ip4 = a.word[3];
		ctx->user_port = port;
	}
	return PROCEED;
}

SEC("cgroup/recvmsg6")
int mesh_recvmsg6(struct bpf_sock_addr *ctx)
{
	struct address a = address_dialled6(ctx);
	__be16 port = ctx->user_port;

	if (shown_as(ctx, &a, &port))
		redirect6(ctx, &a, port);
	return PROCEED;
}

SEC("cgroup/getpeername4")
int mesh_peername4(struct bpf_sock_addr *ctx)
{
	struct address a = address_mapped(ctx->user_ip4);
	__be16 port = ctx->user_port;

	if (shown_as(ctx, &a, &port)) {
		ctx->user_ip4 = a.word[3];
		ctx->user_port = port;
	}
	return PROCEED;
}

SEC("cgroup/getpeername6")
int mesh_peername6(struct bpf_sock_addr *ctx)
{
	struct address a = address_dialled6(ctx);
	__be16 port = ctx->user_port;

	if (shown_as(ctx, &a, &port))
		redirect6(ctx, &a, port);
	return PROCEED;
}
