//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/* Programs that user space runs over sockets, on demand. */
#include "peers.h"
#include "kernel.h"

/* One client socket, as `dump flows` reads it. */
struct flow_record {
	struct flow flow;
	__u64 cookie;	  /* of the socket */
	__u64 netns;	  /* cookie of its namespace */
	__u16 local_port; /* host order */
	__u16 family;
	__u8 state; /* enum of include/net/tcp_states.h */
	__u8 pad[3];
};

static __always_inline bool leads_to_peer(const struct mapping *m, const struct sock *sk)
{
	const struct sock_common *c = &sk->__sk_common;
	const __be32 *ip6 = c->skc_v6_daddr.s6_addr32;
	struct address a = address_mapped(c->skc_daddr);

	if (c->skc_family == FAMILY_INET6)
		a = (struct address){{ip6[0], ip6[1], ip6[2], ip6[3]}};
	return mapping_leads_to(m, &a, c->skc_dport);
}

/*
 * What a connected UDP socket is connected to, or NULL: to what was dialled last; to what was dialled before, where
 * the kernel failed that connect() after the hook; or to no endpoint that a service gave.
 */
static __always_inline const struct mapping *flow_peer(const struct flow *flow, const struct sock *sk)
{
	if (flow->flags & FLOW_SERVICE && leads_to_peer(&flow->connection, sk))
		return &flow->connection;
	if (flow->flags & FLOW_SHOWN && leads_to_peer(&flow->sent, sk))
		return &flow->sent;
	return NULL;
}

static __always_inline bool udp_connected(const struct sock *sk)
{
	return sk->sk_protocol == IPPROTO_UDP && sk->__sk_common.skc_state == BPF_TCP_ESTABLISHED;
}

SEC("iter/bpf_sk_storage_map")
int dump_flows(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct sock *sk = ctx->sk;
	struct flow *flow = ctx->value;
	struct flow_record record = {};

	if (!sk || !flow)
		return 0;
	record.flow = *flow;
	if (udp_connected(sk)) {
		const struct mapping *m = flow_peer(flow, sk);

		if (!m)
			record.flow.flags &= ~FLOW_SERVICE;
		else if (m != &flow->connection) {
			record.flow.flags |= FLOW_SERVICE;
			record.flow.connection = *m;
			record.flow.service_incarnation = 0;
		}
	}
	record.cookie = bpf_get_socket_cookie(sk);
	record.netns = sk->__sk_common.skc_net.net->net_cookie;
	record.local_port = sk->__sk_common.skc_num;
	record.family = sk->__sk_common.skc_family;
	record.state = sk->__sk_common.skc_state;
	bpf_seq_write(ctx->meta->seq, &record, sizeof(record));
	return 0;
}

extern int bpf_sock_destroy(struct sock_common *sock) __ksym;

/*
 * Ends the connected UDP sockets of the reader's network namespace whose endpoint is gone: without it a
 * resolver that connected would send into the void for ever. The application sees ECONNABORTED.
 */
SEC("iter/udp")
int destroy_udp(struct bpf_iter__udp *ctx)
{
	struct udp_sock *sk = ctx->udp_sk;
	const struct mapping *m;
	struct flow *flow;

	/* connect() with AF_UNSPEC runs no hook, so a socket that is no longer connected keeps what it says here. */
	if (!sk || sk->inet.sk.__sk_common.skc_state != BPF_TCP_ESTABLISHED)
		return 0;
	flow = bpf_sk_storage_get(&sockets, sk, 0, 0);
	if (!flow)
		return 0;
	m = flow_peer(flow, &sk->inet.sk);
	if (!m || endpoint_use(m->endpoint) != ENDPOINT_GONE)
		return 0;
	if (!bpf_sock_destroy((struct sock_common *)sk))
		count(COUNT_DESTROYED);
	return 0;
}
