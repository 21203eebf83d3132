//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/*
 * A data plane that is just large enough to be upgraded: it stamps sockets at connect(), looks at the stamp again at
 * getpeername(), counts at an interface and in a namespace, and notices when a socket meets two generations. Compiled
 * with REORDERED, OTHER or EXTRA it is another release. With SCHEMA it has a map that its programs write, of that schema:
 * how often each of 64 drawn keys was seen, which together is TINY_HITS.
 */
#include "../word.h"

#define MAP(kind, entries, key_type, value_type)                                                                       \
	__uint(type, kind);                                                                                            \
	__uint(max_entries, entries);                                                                                  \
	__type(key, key_type);                                                                                         \
	__type(value, value_type)

#define CALLS(hook)                                                                                                    \
	struct {                                                                                                       \
		MAP(BPF_MAP_TYPE_PROG_ARRAY, WORD_LIVE *WORD_SLOTS, __u32, __u32);                                     \
	} calls_##hook SEC(".maps")

CALLS(connect4);
CALLS(peername4);
CALLS(msg);
CALLS(lookup);
CALLS(tcx);

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct super_block);
} super SEC(".maps");

struct tiny_stamp {
	__u16 stamp;
	__u16 ran;
	__u32 reserved;
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct tiny_stamp);
} tiny_stamps SEC(".maps");

struct {
	MAP(BPF_MAP_TYPE_SOCKHASH, 4, __u32, __u64);
} tiny_sockets SEC(".maps");

/* No program uses it: once its pin is lost it is lost. */
struct {
	MAP(BPF_MAP_TYPE_HASH, 4, __u32, __u32);
} tiny_notes SEC(".maps");

enum tiny_total {
	TINY_EVENTS,
	TINY_MIXED,  /* a socket met another generation than before */
	TINY_MISSED, /* an empty slot */
	TINY_HITS,   /* entries of tiny_flows together */
	TINY_TOTALS,
};

struct {
	MAP(BPF_MAP_TYPE_ARRAY, TINY_TOTALS, __u32, __u64);
} tiny_totals SEC(".maps");

enum tiny_hook {
	TINY_ALL,
	TINY_CONNECT4,
	TINY_PEERNAME4,
	TINY_MSG,
	TINY_LOOKUP,
	TINY_TCX,
	TINY_HOOKS,
};

struct tiny_route {
#ifdef REORDERED
	__u32 weight;
	__u32 target;
#else
	__u32 target;
	__u32 weight;
#endif
	__u64 reserved;
};

struct {
	MAP(BPF_MAP_TYPE_HASH, 64, __u32, struct tiny_route);
} tiny_routes SEC(".maps");

struct {
	MAP(BPF_MAP_TYPE_PERCPU_ARRAY, TINY_HOOKS, __u32, __u64); /* by enum tiny_hook */
} tiny_counts SEC(".maps");

#ifdef EXTRA
struct {
	MAP(BPF_MAP_TYPE_ARRAY, 1, __u32, __u64);
} tiny_extra SEC(".maps");
#endif

#ifdef SCHEMA
#include "../migrate/migrate.h"

typedef struct {
	__u64 hits;
} flow1;

typedef struct {
	__u32 zone;
	__u32 pad;
	__u64 hits;
} flow2;

#if SCHEMA == 1
#define FLOWS tiny_flows
#else
#define FLOWS tiny_flows_v2
#endif
#define FLOW STATE_JOIN(flow, SCHEMA)

struct {
	MAP(BPF_MAP_TYPE_HASH, 1024, __u32, FLOW);
} FLOWS SEC(".maps");

static __always_inline void STATE_JOIN(FLOWS, _merge)(FLOW *entry, const FLOW *then, const FLOW *now)
{
	__sync_fetch_and_add(&entry->hits, now->hits - then->hits);
}

#define STATE	    FLOWS
#define STATE_KEY   __u32
#define STATE_VALUE FLOW
#include "../migrate/state.h"

#if SCHEMA == 2
SEC("step") int tiny_flows_v2_up(const __u32 *key, const flow1 *old, flow2 *new)
{
	new->hits = old->hits;
	new->zone = 1;
	return 0;
}

SEC("step") int tiny_flows_v2_down(const __u32 *key, const flow2 *new, flow1 *old)
{
	old->hits = new->hits;
	return 0;
}
#endif
#endif

struct tiny_config {
	__u16 generation;
	__u16 ignore_stamp; /* the control: what serves runs, whatever the stamp says */
};

volatile const struct tiny_config config;

static __always_inline void total(enum tiny_total what)
{
	__u32 index = what;
	__u64 *value = bpf_map_lookup_elem(&tiny_totals, &index);

	if (value)
		__sync_fetch_and_add(value, 1);
}

static __always_inline __u64 word_now(void)
{
	__u32 zero = 0;
	struct super_block *block = bpf_map_lookup_elem(&super, &zero);

	return block ? *(volatile __u64 *)&block->word : 0;
}

static __always_inline __u32 slot_of(__u64 word, __u16 stamp)
{
	return word_base(config.ignore_stamp ? word_serve(word) : word_run(word, stamp));
}

SEC("cgroup/connect4")
int enter_connect4(struct bpf_sock_addr *ctx)
{
	struct tiny_stamp *s = bpf_sk_storage_get(&tiny_stamps, ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	__u64 word = word_now();

	if (s) {
		if (!s->stamp)
			s->stamp = word_stamp(word, 0);
		bpf_tail_call(ctx, &calls_connect4, slot_of(word, s->stamp));
	}
	total(TINY_MISSED);
	return 1;
}

SEC("cgroup/getpeername4")
int enter_peername4(struct bpf_sock_addr *ctx)
{
	struct tiny_stamp *s = bpf_sk_storage_get(&tiny_stamps, ctx->sk, 0, 0);

	if (!s)
		return 1;
	bpf_tail_call(ctx, &calls_peername4, slot_of(word_now(), s->stamp));
	total(TINY_MISSED);
	return 1;
}

SEC("sk_msg")
int enter_msg(struct sk_msg_md *ctx)
{
	bpf_tail_call(ctx, &calls_msg, word_base(word_serve(word_now())));
	total(TINY_MISSED);
	return SK_PASS;
}

SEC("sk_lookup")
int enter_lookup(struct bpf_sk_lookup *ctx)
{
	bpf_tail_call(ctx, &calls_lookup, word_base(word_serve(word_now())));
	total(TINY_MISSED);
	return SK_PASS;
}

SEC("tcx/ingress")
int enter_tcx(struct __sk_buff *ctx)
{
	bpf_tail_call(ctx, &calls_tcx, word_base(word_serve(word_now())));
	total(TINY_MISSED);
	return -1;
}

static __always_inline void count(enum tiny_hook hook)
{
	__u32 index = hook;
	__u64 *value = bpf_map_lookup_elem(&tiny_counts, &index);

	if (value)
		__sync_fetch_and_add(value, 1); /* a program may be preempted by one of another hook */
}

static __always_inline void seen(enum tiny_hook hook)
{
	__u32 zero = 0;

	count(TINY_ALL);
	if (hook)
		count(hook);
	bpf_map_lookup_elem(&tiny_routes, &zero);
#ifdef EXTRA
	bpf_map_lookup_elem(&tiny_extra, &zero);
#endif
#ifdef SCHEMA
	__u32 key = bpf_get_prandom_u32() % 64;
	FLOW fresh = {}, *flow = STATE_JOIN(FLOWS, _add)(&key, &fresh);

	if (flow) {
		__sync_fetch_and_add(&flow->hits, 1);
		total(TINY_HITS);
	}
#endif
	total(TINY_EVENTS);
}

static __always_inline int at_socket(struct bpf_sock_addr *ctx, enum tiny_hook hook)
{
	struct tiny_stamp *s = bpf_sk_storage_get(&tiny_stamps, ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);

	seen(hook);
	if (!s)
		return 1;
	if (s->ran && s->ran != config.generation)
		total(TINY_MIXED);
	s->ran = config.generation;
	return 1;
}

SEC("cgroup/connect4")
int tiny_connect4(struct bpf_sock_addr *ctx)
{
#ifdef OTHER
	seen(TINY_ALL);
#endif
	return at_socket(ctx, TINY_CONNECT4);
}

SEC("cgroup/getpeername4")
int tiny_peername4(struct bpf_sock_addr *ctx)
{
	return at_socket(ctx, TINY_PEERNAME4);
}

SEC("sk_msg")
int tiny_msg(struct sk_msg_md *ctx)
{
	seen(TINY_MSG);
	return SK_PASS;
}

SEC("sk_lookup")
int tiny_lookup(struct bpf_sk_lookup *ctx)
{
	seen(TINY_LOOKUP);
	return SK_PASS;
}

SEC("tcx/ingress")
int tiny_tcx(struct __sk_buff *ctx)
{
	seen(TINY_TCX);
	return -1;
}

struct tiny_rules {
	__u64 word;
	__u32 random;
	__u16 stamp;
	__u16 chosen;
	__u32 run;     /* out */
	__u32 stamped; /* out */
	__u32 base;    /* out */
	__u32 reserved;
};

/* The rules of word.h for a given word and stamp, to be compared with those in Go. */
SEC("syscall")
int tiny_rule(struct tiny_rules *r)
{
	r->run = word_run(r->word, r->stamp);
	r->stamped = word_stamp_of(r->word, r->random, r->chosen);
	r->base = word_base(r->stamp);
	seen(TINY_ALL);
	return 0;
}

const struct exported {
	struct tiny_rules rules;
	enum tiny_total total;
	enum tiny_hook hook;
} *exported __attribute__((unused));

char _license[] SEC("license") = "Dual BSD/GPL";
