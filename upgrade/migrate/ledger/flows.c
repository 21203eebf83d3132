//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/*
 * A state map through six schemas, and traffic on it that keeps its own books: what every entry must hold is known at
 * every instant. Compiled with SCHEMA it is a release; each knows the schemas before its own.
 *
 *	1 count, seen                      hash
 *	2 bytes and zone are added         wider value
 *	3 seen and count change places     equal size
 *	4 the key gets a network           wider key
 *	5 the same                         LRU hash
 *	6 zone goes, bytes in 32 bits      narrower value, what does not fit goes aside
 */
#include "../migrate.h"

typedef __u32 key1;
typedef __u32 key2;
typedef __u32 key3;

typedef struct {
	__u32 id;
	__u32 network;
	__u64 cookie;
} key4;

typedef key4 key5;
typedef key4 key6;

typedef struct {
	__u64 count;
	__u64 seen;
	__u32 dead;
	__u32 pad;
} value1;

typedef struct {
	__u64 count;
	__u64 seen;
	__u64 bytes;
	__u32 dead;
	__u32 zone;
} value2;

typedef struct {
	__u64 seen;
	__u64 count;
	__u64 bytes;
	__u32 dead;
	__u32 zone;
} value3;

typedef value3 value4;
typedef value3 value5;

typedef struct {
	__u64 seen;
	__u64 count;
	__u32 bytes;
	__u32 dead;
} value6;

/* What schema 6 has no place for, and the part of the entry by which it is known to be the same one still. */
struct flows_rest {
	__u64 bytes;
	__u64 seen;
	__u32 zone;
	__u32 pad;
};

#define JOIN(a, b) STATE_JOIN(a, b)

#if SCHEMA == 1
#define FLOWS flows
#else
#define FLOWS JOIN(flows_v, SCHEMA)
#endif

#ifndef KIND
#if SCHEMA >= 5
#define KIND BPF_MAP_TYPE_LRU_HASH
#else
#define KIND BPF_MAP_TYPE_HASH
#endif
#endif

#define KEY   JOIN(key, SCHEMA)
#define VALUE JOIN(value, SCHEMA)

struct {
	__uint(type, KIND);
	__uint(max_entries, 1024);
	__type(key, KEY);
	__type(value, VALUE);
} FLOWS SEC(".maps");

static __always_inline void JOIN(FLOWS, _merge)(VALUE *entry, const VALUE *then, const VALUE *now)
{
	__sync_fetch_and_add(&entry->count, now->count - then->count);
	if (now->seen > entry->seen)
		entry->seen = now->seen;
}

#define STATE		FLOWS
#define STATE_KEY	KEY
#define STATE_VALUE	VALUE
#define STATE_TOMBSTONE dead
#include "../state.h"

#if SCHEMA >= 2
/* What schema 1 has no place for, and the count by which it is known that the entry was not made anew meanwhile. */
struct flows_more {
	__u64 count;
	__u64 bytes;
	__u32 zone;
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1024);
	__type(key, key2);
	__type(value, struct flows_more);
} flows_v2_side SEC(".maps");

SEC("step") int flows_v2_up(const key2 *key, const value1 *old, value2 *new)
{
	struct flows_more *more = bpf_map_lookup_elem(&flows_v2_side, key);

	new->count = old->count;
	new->seen = old->seen;
	new->zone = 1;
	if (more && more->count <= old->count) {
		new->bytes = more->bytes;
		new->zone = more->zone;
	}
	return 0;
}

SEC("step") int flows_v2_down(const key2 *key, const value2 *new, value1 *old)
{
	struct flows_more more = {.count = new->count, .bytes = new->bytes, .zone = new->zone};

	old->count = new->count;
	old->seen = new->seen;
	if (more.bytes || more.zone != 1)
		return bpf_map_update_elem(&flows_v2_side, key, &more, BPF_ANY);
	bpf_map_delete_elem(&flows_v2_side, key);
	return 0;
}
#endif

#if SCHEMA >= 3
SEC("step") int flows_v3_up(const key3 *key, const value2 *old, value3 *new)
{
	new->count = old->count;
	new->seen = old->seen;
	new->bytes = old->bytes;
	new->zone = old->zone;
	return 0;
}

SEC("step") int flows_v3_down(const key3 *key, const value3 *new, value2 *old)
{
	old->count = new->count;
	old->seen = new->seen;
	old->bytes = new->bytes;
	old->zone = new->zone;
	return 0;
}
#endif

#if SCHEMA >= 4
SEC("step") int flows_v4_key_up(const key3 *old, key4 *new)
{
	new->id = *old;
	new->cookie = *old;
	return 0;
}

SEC("step") int flows_v4_key_down(const key4 *new, key3 *old)
{
	*old = new->id;
	return new->network; /* only those of network 0 existed */
}

SEC("step") int flows_v4_up(const key4 *key, const value3 *old, value4 *new)
{
	*new = *old;
	return 0;
}

SEC("step") int flows_v4_down(const key4 *key, const value4 *new, value3 *old)
{
	*old = *new;
	return 0;
}
#endif

#if SCHEMA >= 5
SEC("step") int flows_v5_up(const key5 *key, const value4 *old, value5 *new)
{
	*new = *old;
	return 0;
}

SEC("step") int flows_v5_down(const key5 *key, const value5 *new, value4 *old)
{
	*old = *new;
	return 0;
}
#endif

#if SCHEMA >= 6
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1024);
	__type(key, key6);
	__type(value, struct flows_rest);
} flows_v6_side SEC(".maps");

SEC("step") int flows_v6_up(const key6 *key, const value5 *old, value6 *new)
{
	struct flows_rest rest = {.bytes = old->bytes, .seen = old->seen, .zone = old->zone};

	new->count = old->count;
	new->seen = old->seen;
	new->bytes = old->bytes;
	if (old->zone != 1 || old->bytes >> 32)
		return bpf_map_update_elem(&flows_v6_side, key, &rest, BPF_ANY);
	return 0;
}

SEC("step") int flows_v6_down(const key6 *key, const value6 *new, value5 *old)
{
	struct flows_rest *rest = bpf_map_lookup_elem(&flows_v6_side, key);

	old->count = new->count;
	old->seen = new->seen;
	old->bytes = new->bytes;
	old->zone = 1;
	if (rest && (__u32)rest->bytes == new->bytes) {
		old->bytes = rest->bytes;
		old->zone = rest->zone;
	}
	return 0;
}
#endif

/*
 * Traffic. A worker is one thread; every key but the hot ones belongs to one worker, so that it knows what the entry
 * has to hold. Hot keys are counted by all, and compared in the end.
 */
enum flows_limit {
	HOT = 64,
	WORKERS = 4,
};

struct flows_book {
	__u64 count;
	__u64 lives;
};

struct flows_worker {
	__u64 events;
	__u64 lost;	   /* there was no entry, or it held less than it should */
	__u64 resurrected; /* there was one that had been removed */
	__u64 duplicated;  /* it held more than it should */
	__u64 refused;	   /* the map was full, or busy */
	__u64 inserts, removals, adds;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct flows_book);
} books SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, WORKERS);
	__type(key, __u32);
	__type(value, struct flows_worker);
} workers SEC(".maps");

/* Which generation serves. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} serve SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u32);
} calls SEC(".maps");

volatile const __u32 keys;     /* how many there are, a power of two */
volatile const __u32 dawdle;   /* one of 16 hot events of worker 0 stops half-way for this many rounds */
volatile const __u32 removing; /* of 256 events, how many remove or insert */

SEC("tc")
int enter(struct __sk_buff *ctx)
{
	__u32 zero = 0, *slot = bpf_map_lookup_elem(&serve, &zero);

	if (slot)
		bpf_tail_call(ctx, &calls, *slot);
	return 0;
}

static __always_inline KEY key_of(__u32 id)
{
#if SCHEMA >= 4
	return (KEY){.id = id, .cookie = id};
#else
	return id;
#endif
}

static long dawdle_on(__u32 i, void *nothing)
{
	return 0;
}

static __always_inline void event_hot(struct flows_worker *worker, __u32 who, __u32 id, __u32 random)
{
	struct flows_book *book = bpf_map_lookup_elem(&books, &id);
	VALUE fresh = {}, *entry;
	KEY key = key_of(id);

	entry = JOIN(FLOWS, _add)(&key, &fresh);
	if (!book || !entry) {
		worker->refused++;
		return;
	}
	if (dawdle && !who && !(random >> 28))
		bpf_loop(dawdle, dawdle_on, NULL, 0);
	__sync_fetch_and_add(&entry->count, 1);
	__sync_fetch_and_add(&book->count, 1);
}

static __always_inline void event_insert(struct flows_worker *worker, struct flows_book *book, const KEY *key, bool add)
{
	VALUE fresh = {.count = 1};

	if (add ? !JOIN(FLOWS, _add)(key, &fresh) : JOIN(FLOWS, _set)(key, &fresh)) {
		worker->refused++;
		return;
	}
	book->count = book->lives = 1;
	worker->inserts++;
}

static __always_inline void event_own(struct flows_worker *worker, __u32 id, __u32 random)
{
	struct flows_book *book = bpf_map_lookup_elem(&books, &id);
	KEY key = key_of(id);
	VALUE *entry = JOIN(FLOWS, _get)(&key);

	if (!book)
		return;
	if (!book->lives) {
		if (entry)
			worker->resurrected++;
		else
			event_insert(worker, book, &key, random >> 23 & 1);
		return;
	}
	if (!entry || entry->count < book->count) {
		worker->lost++;
		return;
	}
	if (entry->count > book->count) {
		worker->duplicated++;
		return;
	}
	if (random >> 24 < removing) {
		if (JOIN(FLOWS, _remove)(&key)) {
			worker->lost++;
			return;
		}
		book->lives = book->count = 0;
		worker->removals++;
		return;
	}
	__sync_fetch_and_add(&entry->count, 1);
	book->count++;
	worker->adds++;
}

SEC("tc")
int event(struct __sk_buff *ctx)
{
	__u32 id = ctx->mark & (WORKERS - 1), random = bpf_get_prandom_u32();
	struct flows_worker *worker = bpf_map_lookup_elem(&workers, &id);

	if (!worker)
		return 0;
	worker->events++;
	if (!(random & 7)) {
		event_hot(worker, id, random >> 8 & (HOT - 1), random);
		return 0;
	}
	id = (random >> 3 & (keys - 1) & ~(WORKERS - 1)) | id;
	if (id >= HOT)
		event_own(worker, id, bpf_get_prandom_u32());
	return 0;
}

static long fill_next(__u32 i, __u32 *from)
{
	__u32 id = *from + i;
	struct flows_book *book = bpf_map_lookup_elem(&books, &id);
	VALUE value = {.count = 1 + id % 1000};
	KEY key = key_of(id);

	if (!book || JOIN(FLOWS, _set)(&key, &value))
		return 1;
	book->count = value.count;
	book->lives = 1;
	return 0;
}

/* Makes 1,024 entries, from number mark on, and puts them into the books, before the traffic begins. */
SEC("tc")
int fill(struct __sk_buff *ctx)
{
	__u32 from = ctx->mark;

	return bpf_loop(1024, fill_next, &from, 0);
}

const struct exported {
	value1 value1;
	value2 value2;
	value3 value3;
	value6 value6;
	key4 key4;
	struct flows_book book;
	struct flows_worker worker;
	enum flows_limit limit;
} *exported __attribute__((unused));

char _license[] SEC("license") = "Dual BSD/GPL";
