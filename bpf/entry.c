//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/*
 * Entry programs: attached once, pinned, never changed. Each reads the word once, finds the generation that
 * the connection runs, and jumps into that generation's slot. A slot that is empty is damage: where the hook
 * can refuse, enrolled traffic is refused; everywhere it is counted.
 */
#include "maps.h"

enum verdict {
	REFUSE = 0,
	PROCEED = 1,
	TCX_NEXT = -1, /* to the next program on the interface */
	TCX_DROP = 2,
};

static __always_inline __u64 word_read(void)
{
	__u32 zero = 0;
	struct super_block *block = bpf_map_lookup_elem(&super, &zero);

	return block ? *(volatile __u64 *)&block->word : 0;
}

static __always_inline struct workload *workload_by_netns(__u64 cookie)
{
	struct workload_key key = {.id = cookie, .by = WORKLOAD_BY_NETNS};

	return bpf_map_lookup_elem(&workloads, &key);
}

static __always_inline __u32 slot_of(__u64 word, __u16 stamp)
{
	if (config.controls & CONTROL_IGNORE_STAMP)
		stamp = word_serve(word);
	return word_base(word_run(word, stamp));
}

static __always_inline void miss(enum hook hook)
{
	__u32 index = hook;
	__u64 *counter = bpf_map_lookup_elem(&misses, &index);

	if (counter)
		(*counter)++;
}

/* connect() and sendto() in a workload: the first sight of a client socket stamps it. */
static __always_inline int enter_client(
	struct bpf_sock_addr *ctx, void *calls, enum hook hook, const struct workload *workload)
{
	struct socket *socket = bpf_sk_storage_get(&sockets, ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	__u64 word;

	if (socket) {
		word = word_read();
		if (!socket->stamp)
			socket->stamp = word_stamp(word, workload->flags & WORKLOAD_CANARY);
		bpf_tail_call(ctx, calls, slot_of(word, socket->stamp));
	}
	miss(hook);
	bpf_set_retval(-ECONNREFUSED);
	return REFUSE;
}

/*
 * sendto(), recvmsg() and getpeername(): a stamped socket is ours whether or not its pod still is, so that a
 * withdrawn pod's sockets go on with what they dialled. The last two must return 1.
 */
static __always_inline int enter_stamped(struct bpf_sock_addr *ctx, void *calls, enum hook hook)
{
	struct socket *socket = bpf_sk_storage_get(&sockets, ctx->sk, 0, 0);

	if (!socket)
		return PROCEED;
	bpf_tail_call(ctx, calls, slot_of(word_read(), socket->stamp));
	miss(hook);
	return PROCEED;
}

static __always_inline int enter_connect(struct bpf_sock_addr *ctx, void *calls, enum hook hook)
{
	struct workload *workload = workload_by_netns(bpf_get_netns_cookie(ctx));

	return workload ? enter_client(ctx, calls, hook, workload) : PROCEED;
}

static __always_inline int enter_sendmsg(struct bpf_sock_addr *ctx, void *calls, enum hook hook)
{
	struct workload *workload = workload_by_netns(bpf_get_netns_cookie(ctx));

	return workload ? enter_client(ctx, calls, hook, workload) : enter_stamped(ctx, calls, hook);
}

SEC("cgroup/connect4")
int enter_connect4(struct bpf_sock_addr *ctx)
{
	return enter_connect(ctx, &calls_connect4, HOOK_CONNECT4);
}

SEC("cgroup/connect6")
int enter_connect6(struct bpf_sock_addr *ctx)
{
	return enter_connect(ctx, &calls_connect6, HOOK_CONNECT6);
}

SEC("cgroup/sendmsg4")
int enter_sendmsg4(struct bpf_sock_addr *ctx)
{
	return enter_sendmsg(ctx, &calls_sendmsg4, HOOK_SENDMSG4);
}

SEC("cgroup/sendmsg6")
int enter_sendmsg6(struct bpf_sock_addr *ctx)
{
	return enter_sendmsg(ctx, &calls_sendmsg6, HOOK_SENDMSG6);
}

SEC("cgroup/recvmsg4")
int enter_recvmsg4(struct bpf_sock_addr *ctx)
{
	return enter_stamped(ctx, &calls_recvmsg4, HOOK_RECVMSG4);
}

SEC("cgroup/recvmsg6")
int enter_recvmsg6(struct bpf_sock_addr *ctx)
{
	return enter_stamped(ctx, &calls_recvmsg6, HOOK_RECVMSG6);
}

SEC("cgroup/getpeername4")
int enter_peername4(struct bpf_sock_addr *ctx)
{
	return enter_stamped(ctx, &calls_peername4, HOOK_GETPEERNAME4);
}

SEC("cgroup/getpeername6")
int enter_peername6(struct bpf_sock_addr *ctx)
{
	return enter_stamped(ctx, &calls_peername6, HOOK_GETPEERNAME6);
}

SEC("sockops")
int enter_sock_ops(struct bpf_sock_ops *ctx)
{
	struct socket *socket = NULL;
	bool client = false;

	switch (ctx->op) {
	case BPF_SOCK_OPS_TIMEOUT_INIT: /* numbers that a mesh has no opinion on */
	case BPF_SOCK_OPS_RWND_INIT:
	case BPF_SOCK_OPS_NEEDS_ECN:
	case BPF_SOCK_OPS_BASE_RTT:
		return PROCEED;
	case BPF_SOCK_OPS_STATE_CB: /* established is told apart; on the way from there to the end nothing is decided */
		if (ctx->args[1] != BPF_TCP_CLOSE)
			return PROCEED;
		break;
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		client = true;
	}
	if (ctx->sk)
		socket = bpf_sk_storage_get(&sockets, ctx->sk, 0, 0);
	/* connect() has stamped each client of a workload, so one without a stamp is none. */
	if (!socket && (client || !workload_by_netns(bpf_get_netns_cookie(ctx))))
		return PROCEED;
	bpf_tail_call(ctx, &calls_sock_ops, slot_of(word_read(), socket ? socket->stamp : 0));
	miss(HOOK_SOCK_OPS);
	return PROCEED;
}

/* Attached in the namespaces of workloads only. There is no socket and no stamp: what serves decides. */
SEC("sk_lookup")
int enter_sk_lookup(struct bpf_sk_lookup *ctx)
{
	bpf_tail_call(ctx, &calls_sk_lookup, word_base(word_serve(word_read())));
	miss(HOOK_SK_LOOKUP);
	return SK_DROP;
}

/* Attached at the veths of workloads only, on the node's side: what enters there left the pod, without its socket. */
SEC("tcx/ingress")
int enter_tcx(struct __sk_buff *ctx)
{
	bpf_tail_call(ctx, &calls_tcx, word_base(word_serve(word_read())));
	miss(HOOK_TCX);
	return TCX_DROP;
}

/* A live socket keeps this program for life, so this jump is the only thing that can give it newer code. */
SEC("sk_msg")
int enter_sk_msg(struct sk_msg_md *ctx)
{
	struct socket *socket = NULL;

	if (ctx->sk)
		socket = bpf_sk_storage_get(&sockets, ctx->sk, 0, 0);
	bpf_tail_call(ctx, &calls_sk_msg, slot_of(word_read(), socket ? socket->stamp : 0));
	miss(HOOK_SK_MSG);
	return SK_DROP;
}
