//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/* recvmsg() and getpeername(): the application is shown the service that it dialled, never the endpoint. */
#include "select.h"

/* What to show instead of the address in *a and *port; false if they are to be shown as they are. */
static __always_inline bool peername_of(struct bpf_sock_addr *ctx, struct address *a, __be16 *port)
{
	struct flow *flow = flow_of(ctx->sk);

	/* dst_port is 0 on a socket that is no longer connected: then what the flow says is over. */
	if (!flow || !(flow->flags & FLOW_SERVICE) || !ctx->sk->dst_port)
		return false;
	if (!address_equal(&flow->peer, a) || flow->peer_port != *port)
		return false;
	*a = flow->dialled;
	*port = flow->dialled_port;
	return true;
}

static __always_inline bool source_of(struct bpf_sock_addr *ctx, struct address *a, __be16 *port)
{
	struct peer_key key;
	struct peer *peer;

	if (peername_of(ctx, a, port))
		return true;
	key = peer_key(bpf_get_socket_cookie(ctx), a, *port, PEER_SERVICE);
	peer = bpf_map_lookup_elem(&peers, &key);
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

	if (source_of(ctx, &a, &port)) {
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

	if (source_of(ctx, &a, &port))
		redirect6(ctx, &a, port);
	return PROCEED;
}

SEC("cgroup/getpeername4")
int mesh_peername4(struct bpf_sock_addr *ctx)
{
	struct address a = address_mapped(ctx->user_ip4);
	__be16 port = ctx->user_port;

	if (peername_of(ctx, &a, &port)) {
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

	if (peername_of(ctx, &a, &port))
		redirect6(ctx, &a, port);
	return PROCEED;
}
