//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/* sendto() of UDP: a socket stays with one endpoint of a service while that is usable, or QUIC and DTLS would break. */
#include "peers.h"

enum { PROTOCOL_UDPLITE = 136 }; /* RFC 3828 */

static __always_inline enum outcome sendmsg_select(struct bpf_sock_addr *ctx, struct selection *s)
{
	struct flow *flow = flow_of(ctx->sk);
	__u64 socket = bpf_get_socket_cookie(ctx);
	enum outcome outcome = OUTCOME_SELECTED;
	struct mapping m;

	s->key.port = ctx->user_port;
	s->key.protocol = ctx->protocol;
	s->client = ctx;
	/* Of no service: to the address of one it is a port that is not there. The kernel has no hook for its connect(). */
	if (s->key.protocol != IPPROTO_UDP && s->key.protocol != PROTOCOL_UDPLITE)
		return OUTCOME_PASS;
	if (!flow || !ctx->sk)
		return refuse(REFUSED_NO_MEMORY);
	/* So looks each write() of an AF_INET6 socket that is connected to IPv4, and it says nothing new. */
	if (connected_to(ctx->sk, &s->key.address, s->key.port))
		return OUTCOME_PASS;
	/* A connected socket hears nobody but its peer, so that is whom it must ask when it names the service. */
	if (flow_connected(flow, ctx->sk) && mapping_is_of(&flow->connection, &s->key.address, s->key.port)) {
		select_known(s, &flow->connection);
		return OUTCOME_SELECTED;
	}
	if (!peer_known(flow, s, socket)) {
		/* The pod may be withdrawn: then the socket goes on with what it has, and is given nothing new. */
		outcome = workload_by_netns(bpf_get_netns_cookie(ctx)) ? select(s) : OUTCOME_PASS;
		if (outcome == OUTCOME_SELECTED)
			count(COUNT_SEND);
	}
	if (outcome == OUTCOME_PASS) {
		count(COUNT_PASSED);
		peer_forget(flow, &s->key.address, s->key.port, socket);
	}
	if (outcome != OUTCOME_SELECTED)
		return outcome;
	m = mapping_selected(s);
	return peer_remember(flow, &m, socket) ? OUTCOME_SELECTED : refuse(REFUSED_NO_MEMORY);
}

SEC("cgroup/sendmsg4")
int mesh_sendmsg4(struct bpf_sock_addr *ctx)
{
	struct selection s = {.key.address = address_mapped(ctx->user_ip4)};

	switch (sendmsg_select(ctx, &s)) {
	case OUTCOME_SELECTED:
		ctx->user_ip4 = s.address.word[3];
		ctx->user_port = s.port;
		return PROCEED;
	case OUTCOME_PASS:
		return PROCEED;
	case OUTCOME_REFUSE:
		break;
	}
	return turn_away();
}

SEC("cgroup/sendmsg6")
int mesh_sendmsg6(struct bpf_sock_addr *ctx)
{
	struct selection s = {.key.address = address_dialled6(ctx)};

	switch (sendmsg_select(ctx, &s)) {
	case OUTCOME_SELECTED:
		redirect6(ctx, &s.address, s.port);
		return PROCEED;
	case OUTCOME_PASS:
		return PROCEED;
	case OUTCOME_REFUSE:
		break;
	}
	return turn_away();
}
