// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#pragma once

#include <linux/bpf.h>
#include <linux/types.h>
#include <linux/errno.h>
#include <stdbool.h>
#include <bpf/bpf_helpers.h>

/* What all maps have in common that are migrated; state.h is included once for each. */

enum migrate_limit {
	STATE_KEY_MAX = 64,    /* bytes of a key of any schema */
	STATE_PATIENCE = 4096, /* tries, of some 20 ns, to see another CPU through two instructions */
};

/* A tombstone's life. */
enum entry_state {
	ENTRY_LIVES,
	ENTRY_DEAD,
	ENTRY_CLAIMED, /* about to be replaced */
	ENTRY_REAPED,  /* about to be deleted */
};

enum note_state {
	NOTE_OPEN,
	NOTE_SETTLING,
	NOTE_SETTLED,
};

/* What became of one entry that an iterator saw: a byte of its output. */
enum copy_outcome {
	COPY_INSERTED = 1,
	COPY_THERE,    /* already */
	COPY_LEFT_OUT, /* a tombstone, or the schema has no place for it */
	COPY_FAILED,   /* the map is full */
};

enum bridge_phase {
	BRIDGE_NOTING, /* code that writes the source may run */
	BRIDGE_COPYING,
};

struct bridge_state {
	__u32 phase; /* enum bridge_phase; written by user space */
	__u32 pad;
	__u64 failed; /* entries that traffic asked for and that could not be taken over */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct bridge_state);
} bridge SEC(".maps");

struct check_request {
	__u64 keys; /* address in the caller's memory */
	__u32 count;
	__u32 key_size;
	__u32 missing; /* out */
	__u32 fault;   /* out: not 0 if the keys could not be read */
};

struct seq_file;

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
#ifndef MIGRATE_HAS_ITER_META
struct bpf_iter_meta {
	struct seq_file *seq;
};

#endif

struct bpf_map {
	enum bpf_map_type map_type;
};

struct bpf_iter__bpf_map_elem {
	struct bpf_iter_meta *meta;
	struct bpf_map *map;
	void *key;
	void *value;
};
#pragma clang attribute pop

/* Static, yet the compiler may not change how they are called: it cannot know all callers. */
#define STATE_ACCESSOR __attribute__((noinline, used))

#define STATE_JOIN(a, b)  STATE_JOIN2(a, b)
#define STATE_JOIN2(a, b) a##b

/* Waiting for another CPU, in tries. */
struct patience {
	const void *key;
	long error; /* what to say when it comes to an end */
};

/* The body of a function that gets another at load: the compiler may conclude nothing from this one. */
static __always_inline int conversion(const void *a, const void *b, const void *c)
{
	int none = 1;

	asm volatile("" : "+r"(none) : "r"(a), "r"(b), "r"(c) : "memory");
	return none;
}

static __always_inline struct bridge_state *bridge_state(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&bridge, &zero);
}

static __always_inline void bridge_failed(void)
{
	struct bridge_state *state = bridge_state();

	if (state)
		__sync_fetch_and_add(&state->failed, 1);
}

/* Whether a map that is full makes room by itself. */
static __always_inline bool evicts(void *map)
{
	enum bpf_map_type type = ((struct bpf_map *)map)->map_type;

	return type == BPF_MAP_TYPE_LRU_HASH || type == BPF_MAP_TYPE_LRU_PERCPU_HASH;
}

static __always_inline int copied(struct seq_file *seq, __u8 outcome)
{
	bpf_seq_write(seq, &outcome, 1);
	return 0;
}
