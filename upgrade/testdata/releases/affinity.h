// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#pragma once

/*
 * Session affinity through six schemas, of releases to upgrade between. AFFINITY_SCHEMA is that of the release, which
 * knows the steps to all before its own.
 *
 *	1 endpoint, seen                             LRU hash, as bpf/affinity.h has it
 *	2 first and connections are added            wider value
 *	3 the fields change places                   equal size
 *	4 the key gets a network                     wider key
 *	5 the same                                   hash
 *	6 seen in seconds, connections in 32 bits,   narrower value, what does not fit goes aside
 *	  first goes
 */
#define BODY1                                                                                                          \
	{                                                                                                              \
		__u64 endpoint, seen;                                                                                  \
	}
#define BODY2                                                                                                          \
	{                                                                                                              \
		__u64 endpoint, seen, first, connections;                                                              \
	}
#define BODY3                                                                                                          \
	{                                                                                                              \
		__u64 first, connections, seen, endpoint;                                                              \
	}
#define BODY4 BODY3
#define BODY5 BODY3
#define BODY6                                                                                                          \
	{                                                                                                              \
		__u64 endpoint;                                                                                        \
		__u32 seen, connections;                                                                               \
	}
#define KEY1                                                                                                           \
	{                                                                                                              \
		__u64 workload;                                                                                        \
		__u32 service, incarnation;                                                                            \
	}
#define KEY2 KEY1
#define KEY3 KEY1
#define KEY4                                                                                                           \
	{                                                                                                              \
		__u64 workload;                                                                                        \
		__u32 network, service, incarnation, pad;                                                              \
	}
#define KEY5 KEY4
#define KEY6 KEY4

struct affinity_key STATE_JOIN(KEY, AFFINITY_SCHEMA);
struct affinity STATE_JOIN(BODY, AFFINITY_SCHEMA);

struct affinity_key1 KEY1;
struct affinity_key4 KEY4;
struct affinity1 BODY1;
struct affinity2 BODY2;
struct affinity3 BODY3;
struct affinity6 BODY6;

#if AFFINITY_SCHEMA == 1
#define AFFINITIES affinities
#else
#define AFFINITIES STATE_JOIN(affinities_v, AFFINITY_SCHEMA)
#endif

#if AFFINITY_SCHEMA >= 5
#define AFFINITIES_KIND BPF_MAP_TYPE_HASH
#else
#define AFFINITIES_KIND BPF_MAP_TYPE_LRU_HASH
#endif

#define SECOND 1000000000ULL

static __always_inline struct affinity_key affinity_key(__u64 workload, __u32 service, __u32 incarnation)
{
	return (struct affinity_key){.workload = workload, .service = service, .incarnation = incarnation};
}

static __always_inline struct affinity affinity_of(__u64 endpoint, __u64 seen)
{
	struct affinity a = {.endpoint = endpoint};

#if AFFINITY_SCHEMA >= 6
	a.seen = seen / SECOND;
#else
	a.seen = seen;
#endif
#if AFFINITY_SCHEMA >= 2
	a.connections = 1;
#endif
#if AFFINITY_SCHEMA >= 2 && AFFINITY_SCHEMA < 6
	a.first = seen;
#endif
	return a;
}

static __always_inline __u64 affinity_endpoint(const struct affinity *a)
{
	return *(const volatile __u64 *)&a->endpoint;
}

static __always_inline __u64 affinity_seen(const struct affinity *a)
{
#if AFFINITY_SCHEMA >= 6
	return *(const volatile __u32 *)&a->seen * SECOND;
#else
	return *(const volatile __u64 *)&a->seen;
#endif
}

static __always_inline void affinity_touch(struct affinity *a, __u64 now)
{
#if AFFINITY_SCHEMA >= 6
	*(volatile __u32 *)&a->seen = now / SECOND;
#else
	*(volatile __u64 *)&a->seen = now;
#endif
#if AFFINITY_SCHEMA >= 2 /* what these releases do and the first does not */
	__sync_fetch_and_add(&a->connections, 1);
#endif
}

#if AFFINITY_SCHEMA >= 2
/* What schema 1 has no place for, and the fields by which it is known that the entry is the same one. */
struct affinity2_rest {
	__u64 endpoint, seen, first, connections;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 8192);
	__type(key, struct affinity_key1);
	__type(value, struct affinity2_rest);
} affin_v2_side SEC(".maps");

SEC("step") int affinities_v2_up(const struct affinity_key1 *key, const struct affinity1 *old, struct affinity2 *new)
{
	struct affinity2_rest *rest = bpf_map_lookup_elem(&affin_v2_side, key);

	new->endpoint = old->endpoint;
	new->seen = old->seen;
	if (rest && rest->endpoint == old->endpoint && rest->seen <= old->seen) {
		new->first = rest->first;
		new->connections = rest->connections;
	}
	return 0;
}

SEC("step") int affinities_v2_down(const struct affinity_key1 *key, const struct affinity2 *new, struct affinity1 *old)
{
	struct affinity2_rest rest = {new->endpoint, new->seen, new->first, new->connections};

	old->endpoint = new->endpoint;
	old->seen = new->seen;
	return bpf_map_update_elem(&affin_v2_side, key, &rest, BPF_ANY);
}
#endif

#if AFFINITY_SCHEMA >= 3
SEC("step") int affinities_v3_up(const struct affinity_key1 *key, const struct affinity2 *old, struct affinity3 *new)
{
	new->endpoint = old->endpoint;
	new->seen = old->seen;
	new->first = old->first;
	new->connections = old->connections;
	return 0;
}

SEC("step") int affinities_v3_down(const struct affinity_key1 *key, const struct affinity3 *new, struct affinity2 *old)
{
	old->endpoint = new->endpoint;
	old->seen = new->seen;
	old->first = new->first;
	old->connections = new->connections;
	return 0;
}
#endif

#if AFFINITY_SCHEMA >= 4
SEC("step") int affinities_v4_key_up(const struct affinity_key1 *old, struct affinity_key4 *new)
{
	new->workload = old->workload;
	new->service = old->service;
	new->incarnation = old->incarnation;
	return 0;
}

SEC("step") int affinities_v4_key_down(const struct affinity_key4 *new, struct affinity_key1 *old)
{
	old->workload = new->workload;
	old->service = new->service;
	old->incarnation = new->incarnation;
	return new->network; /* only those of the node's own existed */
}

SEC("step") int affinities_v4_up(const struct affinity_key4 *key, const struct affinity3 *old, struct affinity3 *new)
{
	*new = *old;
	return 0;
}

SEC("step") int affinities_v4_down(const struct affinity_key4 *key, const struct affinity3 *new, struct affinity3 *old)
{
	*old = *new;
	return 0;
}
#endif

#if AFFINITY_SCHEMA >= 5
SEC("step") int affinities_v5_up(const struct affinity_key4 *key, const struct affinity3 *old, struct affinity3 *new)
{
	*new = *old;
	return 0;
}

SEC("step") int affinities_v5_down(const struct affinity_key4 *key, const struct affinity3 *new, struct affinity3 *old)
{
	*old = *new;
	return 0;
}
#endif

#if AFFINITY_SCHEMA >= 6
struct affinity6_rest {
	__u64 seen, first, connections;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 8192);
	__type(key, struct affinity_key4);
	__type(value, struct affinity6_rest);
} affin_v6_side SEC(".maps");

SEC("step") int affinities_v6_up(const struct affinity_key4 *key, const struct affinity3 *old, struct affinity6 *new)
{
	struct affinity6_rest rest = {old->seen, old->first, old->connections};

	new->endpoint = old->endpoint;
	new->seen = old->seen / SECOND;
	new->connections = old->connections;
	return bpf_map_update_elem(&affin_v6_side, key, &rest, BPF_ANY);
}

/* A connection that came since has moved seen and connections; what was put aside is what they began from. */
SEC("step") int affinities_v6_down(const struct affinity_key4 *key, const struct affinity6 *new, struct affinity3 *old)
{
	struct affinity6_rest *rest = bpf_map_lookup_elem(&affin_v6_side, key);

	old->endpoint = new->endpoint;
	old->seen = new->seen *SECOND;
	old->connections = new->connections;
	if (!rest)
		return 0;
	old->first = rest->first;
	old->connections = rest->connections + (__u32)(new->connections - (__u32)rest->connections);
	if (rest->seen / SECOND == new->seen)
		old->seen = rest->seen;
	return 0;
}
#endif
