//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/* connect() of TCP and UDP: what was dialled is remembered on the socket, and an endpoint is dialled instead. */
#include "peers.h"
#include "kernel.h"
#include <bpf/bpf_core_read.h>

/* The state of a socket that the entry has stamped; says once if another generation ran it before. */
static __always_inline struct flow *flow_of(struct bpf_sock *sk)
{
	struct flow *flow = sk ? bpf_sk_storage_get(&sockets, sk, 0, 0) : NULL;

	if (flow && flow->ran != config.generation) {
		if (flow->ran)
			count(COUNT_MOVED);
		flow->ran = config.generation;
	}
	return flow;
}

/*
 * MPTCP connects by a subflow, which is what the hooks of connect() and sock_ops see. The application has the socket
 * above, so that is told what to show. It says so as sent, not as connection: it is no second flow.
 */
static __always_inline void flow_show_above(struct bpf_sock *sk, const struct flow *flow)
{
	struct mptcp_sock *socket;
	struct flow *above;

	if (!bpf_core_type_exists(struct mptcp_sock)) /* nor does the helper: the kernel has no MPTCP */
		return;
	socket = bpf_skc_to_mptcp_sock(sk);
	if (!socket)
		return;
	above = bpf_sk_storage_get(&sockets, socket, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!above)
		return; /* getpeername() shows the endpoint */
	above->stamp = flow->stamp;
	above->layout = FLOW_LAYOUT;
	above->ran = flow->ran;
	above->protocol = flow->protocol;
	above->sent = flow->connection;
	above->flags = FLOW_SENT | FLOW_SHOWN;
}

/*
 * A service was dialled. The hook runs before the kernel connects, and that may still fail: what the socket is
 * connected to until then is kept beside.
 */
static __always_inline void flow_start(struct bpf_sock_addr *ctx, struct flow *flow, const struct selection *s)
{
	if (s->key.protocol == IPPROTO_UDP && flow_connected(flow, ctx->sk))
		peer_remember(flow, &flow->connection, bpf_get_socket_cookie(ctx));
	flow->layout = FLOW_LAYOUT;
	flow->protocol = s->key.protocol;
	flow->connection = mapping_selected(s);
	flow->service_incarnation = s->incarnation;
	flow->start = bpf_ktime_get_boot_ns();
	flow->flags |= FLOW_SERVICE;
	if (s->key.protocol == IPPROTO_TCP)
		flow_show_above(ctx->sk, flow);
}

/*
 * What is no service was dialled. Of a UDP socket only what is known of that address goes: should the kernel fail
 * the connect(), the socket stays connected to what it was; and if not, connection is no longer its peer.
 */
static __always_inline void flow_pass(struct bpf_sock_addr *ctx, struct flow *flow, const struct selection *s)
{
	if (s->key.protocol == IPPROTO_TCP || mapping_leads_to(&flow->connection, &s->key.address, s->key.port))
		flow->flags &= ~FLOW_SERVICE;
	if (s->key.protocol == IPPROTO_UDP)
		peer_forget(flow, &s->key.address, s->key.port, bpf_get_socket_cookie(ctx));
}

static __always_inline int turn_away(void)
{
	bpf_set_retval(-ECONNREFUSED);
	return REFUSE;
}

static __always_inline enum outcome connect_select(struct bpf_sock_addr *ctx, struct selection *s)
{
	struct flow *flow = flow_of(ctx->sk);
	enum outcome outcome;

	s->key.port = ctx->user_port;
	s->key.protocol = ctx->protocol;
	s->client = ctx;
	if (s->key.protocol != IPPROTO_TCP && s->key.protocol != IPPROTO_UDP)
		return OUTCOME_PASS;
	if (!flow)
		return refuse(REFUSED_NO_MEMORY);
	outcome = select(s);
	if (outcome == OUTCOME_SELECTED) {
		flow_start(ctx, flow, s);
		count(COUNT_CONNECT);
	} else if (outcome == OUTCOME_PASS) {
		flow_pass(ctx, flow, s);
		count(COUNT_PASSED);
	}
	return outcome;
}

SEC("cgroup/connect4")
int mesh_connect4(struct bpf_sock_addr *ctx)
{
	struct selection s = {.key.address = address_mapped(ctx->user_ip4)};

	switch (connect_select(ctx, &s)) {
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

static __always_inline struct address address_dialled6(struct bpf_sock_addr *ctx)
{
	return (struct address){{ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]}};
}

static __always_inline void redirect6(struct bpf_sock_addr *ctx, const struct address *to, __be16 port)
{
	ctx->user_ip6[0] = to->word[0];
	ctx->user_ip6[1] = to->word[1];
	ctx->user_ip6[2] = to->word[2];
	ctx->user_ip6[3] = to->word[3];
	ctx->user_port = port;
}

SEC("cgroup/connect6")
int mesh_connect6(struct bpf_sock_addr *ctx)
{
	struct selection s = {.key.address = address_dialled6(ctx)};

	switch (connect_select(ctx, &s)) {
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
