// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#pragma once

#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>

/*
 * The word says which generation serves. It is one aligned 64-bit integer, from the high bits to the low ones
 *
 *	epoch:16 | floor:12 | serve:12 | canary:12 | share:12
 *
 * so one store changes what every hook on every CPU does next. Generation 0 does not exist. ABI: entry
 *programs of one release read what another release wrote, so nothing here ever changes.
 */
enum word_layout {
	WORD_GENERATIONS = 4096, /* numbers come round; 0 is skipped */
	WORD_LIVE = 4,		 /* generations live at once */
	WORD_SLOTS = 16,	 /* programs a generation may have at one hook */
	WORD_SHARES = 4096,	 /* the denominator of share */
};

enum super_magic {
	SUPER_MAGIC = 0x6b65656c, /* "keel" */
	SUPER_ABI = 1,
	SUPER_STEPS = 64,
	SUPER_EVENTS = 16,
};

/* What became of a generation, in words; a ring that outlives every agent. */
struct super_event {
	__u64 when; /* CLOCK_REALTIME, nanoseconds */
	__u16 epoch;
	__u16 from, to;	 /* generations that served before and after */
	__u16 kind;	 /* enum of user space: see Kind in history.go */
	__u8 digest[16]; /* the first bytes of that of the generation that the event is about */
	__u8 text[144];	 /* UTF-8, zero-filled */
};

/* A named step that an owner of the pinned state took; the log is a ring, so that a post-mortem can read it. */
struct super_step {
	__u64 when; /* CLOCK_BOOTTIME, nanoseconds */
	__u16 epoch;
	__u16 generation;
	__u32 step; /* enum of user space: see Step in step.go */
};

/* The one value of the map `super`: user space maps it read-only, only the program `super_change` writes it. */
struct super_block {
	__u32 magic;
	__u32 abi;
	__u64 word;
	__u64 phase;		     /* epoch:16 | reserved:8 | previous:12 | last:12 | phase:16 */
	__u64 steps;		     /* how many were ever logged; the next goes to steps % SUPER_STEPS */
	__u8 digests[WORD_LIVE][32]; /* SHA-256 of what a live generation was loaded from, at its number % 4 */
	struct super_step log[SUPER_STEPS];
	__u64 events; /* how many there ever were; the next goes to events % SUPER_EVENTS */
	struct super_event history[SUPER_EVENTS];
	__u8 reserved[88];
};

_Static_assert(sizeof(struct super_block) == 4096, "a page, so that it can be mapped");

static __always_inline __u16 word_epoch(__u64 word)
{
	return word >> 48;
}

static __always_inline __u16 word_floor(__u64 word)
{
	return word >> 36 & 0xfff;
}

static __always_inline __u16 word_serve(__u64 word)
{
	return word >> 24 & 0xfff;
}

static __always_inline __u16 word_canary(__u64 word)
{
	return word >> 12 & 0xfff;
}

static __always_inline __u16 word_share(__u64 word)
{
	return word & 0xfff;
}

/* The same for a given random number, so that the rule can be compared with Word.Stamp in Go. */
static __always_inline __u16 word_stamp_of(__u64 word, __u32 random, _Bool chosen)
{
	__u16 canary = word_canary(word);

	if (canary && (chosen || (random & (WORD_SHARES - 1)) < word_share(word)))
		return canary;
	return word_serve(word);
}

/* The stamp of a new connection; chosen is true for a workload that takes every canary. */
static __always_inline __u16 word_stamp(__u64 word, _Bool chosen)
{
	return word_canary(word) ? word_stamp_of(word, bpf_get_prandom_u32(), chosen) : word_serve(word);
}

/*
 * The generation that a stamped connection runs: its own while that is between floor and serve (numbers come
 * round) or is the canary, the floor otherwise. The same rule in Go is Word.Run; the two are compared by a
 * test.
 */
static __always_inline __u16 word_run(__u64 word, __u16 stamp)
{
	__u16 floor = word_floor(word);

	if (stamp && ((stamp - floor & 0xfff) <= (word_serve(word) - floor & 0xfff) || stamp == word_canary(word)))
		return stamp;
	return floor;
}

/* The first of the slots that a generation owns in the prog array of a hook. */
static __always_inline __u32 word_base(__u16 generation)
{
	return generation % WORD_LIVE * WORD_SLOTS;
}
