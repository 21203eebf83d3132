//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/* The data plane of example_test.go: it counts the packets that enter an interface. */
#include "../word.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct super_block);
} super SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, WORD_LIVE *WORD_SLOTS);
	__type(key, __u32);
	__type(value, __u32);
} calls_packets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} counts SEC(".maps");

volatile const __u64 step = 1; /* the next release counts by another */

SEC("tcx/ingress")
int enter_packets(struct __sk_buff *ctx)
{
	__u32 zero = 0;
	struct super_block *block = bpf_map_lookup_elem(&super, &zero);

	if (block)
		bpf_tail_call(ctx, &calls_packets, word_base(word_serve(*(volatile __u64 *)&block->word)));
	return -1; /* on to the next program */
}

SEC("tcx/ingress")
int count_packets(struct __sk_buff *ctx)
{
	__u32 zero = 0;
	__u64 *count = bpf_map_lookup_elem(&counts, &zero);

	if (count)
		__sync_fetch_and_add(count, step);
	return -1;
}

char _license[] SEC("license") = "Dual BSD/GPL";
