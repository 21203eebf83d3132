// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#pragma once

/* A hook that the product does not have: sockets of the node that are released. What serves counts them. */
CALLS(release);

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} released SEC(".maps");

SEC("cgroup/sock_release")
int enter_release(struct bpf_sock *ctx)
{
	bpf_tail_call(ctx, &calls_release, word_base(word_serve(word_read())));
	return PROCEED;
}

SEC("cgroup/sock_release")
int mesh_release(struct bpf_sock *ctx)
{
	__u32 zero = 0;
	__u64 *count = bpf_map_lookup_elem(&released, &zero);

	if (count)
		__sync_fetch_and_add(count, 1);
	return PROCEED;
}
