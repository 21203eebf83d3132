//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

#include "word.h"

/* Writer: super_change below, no other. Readers: every entry program, and user space by mmap. Frozen for user space. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct super_block);
} super SEC(".maps");

enum super_op {
	SUPER_SWAP_WORD = 1, /* word: expect -> store */
	SUPER_SWAP_PHASE,    /* phase: expect -> store */
	SUPER_RECORD,	     /* digests[place] = digest, if the epoch is that of expect */
	SUPER_LOG,	     /* append step, if the epoch is that of expect */
	SUPER_TELL,	     /* append event, likewise */
};

struct super_request {
	__u32 op;
	__u32 place; /* of digests, 0 to 3; or the step to log */
	__u64 expect;
	__u64 store; /* for SUPER_LOG the generation */
	__u64 found; /* out: the word or phase as it was before; equal to expect if the change was made */
	__u8 digest[32];
	struct super_event event; /* for SUPER_TELL; the epoch is filled in */
};

/* Names what must reach BTF, and so Go, though no map or program has it in its type. */
const struct exported {
	struct super_request request;
	enum super_op op;
	struct super_event event;
	enum super_magic magic;
	enum word_layout layout;
} *exported __attribute__((unused));

static __always_inline void super_log(struct super_block *s, struct super_request *change)
{
	__u64 next = __sync_fetch_and_add(&s->steps, 1);
	struct super_step *step = &s->log[next % SUPER_STEPS];

	step->when = bpf_ktime_get_boot_ns();
	step->epoch = word_epoch(change->expect);
	step->generation = change->store;
	step->step = change->place;
}

static __always_inline void super_tell(struct super_block *s, struct super_request *change)
{
	__u64 next = s->events & (SUPER_EVENTS - 1);

	s->history[next] = change->event;
	s->history[next].epoch = word_epoch(change->expect);
	__sync_fetch_and_add(&s->events, 1);
}

/*
 * The only writer of super. Run by BPF_PROG_RUN, so each change is one system call, which a supervisor can
 * stop before and after; an owner whose epoch is over expects a word that is no longer there, and changes
 * nothing.
 */
SEC("syscall")
int super_change(struct super_request *change)
{
	__u32 zero = 0;
	struct super_block *s = bpf_map_lookup_elem(&super, &zero);

	if (!s)
		return -1;
	switch (change->op) {
	case SUPER_SWAP_WORD:
		change->found = __sync_val_compare_and_swap(&s->word, change->expect, change->store);
		return 0;
	case SUPER_SWAP_PHASE:
		change->found = __sync_val_compare_and_swap(&s->phase, change->expect, change->store);
		return 0;
	}
	change->found = *(volatile __u64 *)&s->word;
	if (word_epoch(change->found) != word_epoch(change->expect))
		return 0;
	if (change->op == SUPER_RECORD && change->place < WORD_LIVE)
		__builtin_memcpy(s->digests[change->place & (WORD_LIVE - 1)], change->digest, 32);
	else if (change->op == SUPER_LOG)
		super_log(s, change);
	else if (change->op == SUPER_TELL)
		super_tell(s, change);
	else
		return -1;
	change->found = change->expect;
	return 0;
}

char _license[] SEC("license") = "Dual BSD/GPL";
