//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/* Programs that user space runs over sockets, on demand. */
#include "select.h"
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

SEC("iter/bpf_sk_storage_map")
int dump_flows(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct sock *sk = ctx->sk;
	struct flow *flow = ctx->value;
	struct flow_record record = {};

	if (!sk || !flow)
		return 0;
	record.flow = *flow;
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
	struct flow *flow;

	/* connect() with AF_UNSPEC runs no hook, so a socket that is no longer connected keeps what it says here. */
	if (!sk || sk->inet.sk.__sk_common.skc_state != BPF_TCP_ESTABLISHED)
		return 0;
	flow = bpf_sk_storage_get(&sockets, sk, 0, 0);
	if (!flow || !(flow->flags & FLOW_SERVICE) || endpoint_use(flow->endpoint) != ENDPOINT_GONE)
		return 0;
	if (!bpf_sock_destroy((struct sock_common *)sk))
		count(COUNT_DESTROYED);
	return 0;
}
