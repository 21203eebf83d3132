//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/* Which generations sockets are stamped with: iterators over the socket storage whose values begin with the stamp. */
#include "word.h"

struct seq_file;

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct bpf_iter_meta {
	struct seq_file *seq;
};

struct bpf_map;
struct sock;

struct bpf_iter__bpf_sk_storage_map {
	struct bpf_iter_meta *meta;
	struct bpf_map *map;
	struct sock *sk;
	void *value;
};
#pragma clang attribute pop

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct super_block);
} super SEC(".maps");

/* Writes each socket's stamp, two bytes. */
SEC("iter/bpf_sk_storage_map")
int stamps_list(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	__u16 *stamp = ctx->value, found;

	if (!ctx->sk || !stamp)
		return 0;
	found = *stamp;
	bpf_seq_write(ctx->meta->seq, &found, sizeof(found));
	return 0;
}

/* Stamps sockets that run the floor, though they carry another number, with the floor; writes a byte for each. */
SEC("iter/bpf_sk_storage_map")
int stamps_sweep(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	__u16 *stamp = ctx->value, floor;
	__u32 zero = 0;
	struct super_block *block;
	__u64 word;
	__u8 one = 1;

	if (!ctx->sk || !stamp)
		return 0;
	block = bpf_map_lookup_elem(&super, &zero);
	if (!block)
		return 0;
	word = *(volatile __u64 *)&block->word;
	floor = word_floor(word);
	if (!*stamp || *stamp == floor || word_run(word, *stamp) != floor)
		return 0;
	*stamp = floor;
	bpf_seq_write(ctx->meta->seq, &one, 1);
	return 0;
}

char _license[] SEC("license") = "Dual BSD/GPL";
