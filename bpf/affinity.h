// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#pragma once

#include "service.h"

/*
 * Which endpoint a workload stays with. Who chooses endpoints knows the functions here and not the layout, which is
 * another in another release: AFFINITY_LAYOUT is a header with one, of a release that upgrades are tested with.
 */
#ifdef AFFINITY_LAYOUT
#include AFFINITY_LAYOUT
#else

#define AFFINITIES	affinities
#define AFFINITIES_KIND BPF_MAP_TYPE_LRU_HASH

struct affinity_key {
	__u64 workload; /* netns cookie: at connect() the source address is not chosen yet */
	__u32 service;
	__u32 incarnation;
};

struct affinity {
	__u64 endpoint; /* endpoint_ref */
	__u64 seen;	/* CLOCK_BOOTTIME of the last connection, nanoseconds */
};

static __always_inline struct affinity_key affinity_key(__u64 workload, __u32 service, __u32 incarnation)
{
	return (struct affinity_key){.workload = workload, .service = service, .incarnation = incarnation};
}

static __always_inline struct affinity affinity_of(__u64 endpoint, __u64 seen)
{
	return (struct affinity){.endpoint = endpoint, .seen = seen};
}

static __always_inline __u64 affinity_endpoint(const struct affinity *a)
{
	return *(const volatile __u64 *)&a->endpoint;
}

static __always_inline __u64 affinity_seen(const struct affinity *a)
{
	return *(const volatile __u64 *)&a->seen;
}

static __always_inline void affinity_touch(struct affinity *a, __u64 now)
{
	*(volatile __u64 *)&a->seen = now;
}

#endif

/* Writers: connect, sendmsg. A miss or an evicted entry: the workload is given an endpoint anew. */
struct {
	__uint(type, AFFINITIES_KIND);
	__uint(max_entries, 8192);
	__type(key, struct affinity_key);
	__type(value, struct affinity);
} AFFINITIES SEC(".maps");

/* Of two releases that both gave the workload an endpoint, across an upgrade, the later one counts. */
static __always_inline void STATE_JOIN(AFFINITIES, _merge)(
	struct affinity *entry, const struct affinity *then, const struct affinity *now)
{
	if (affinity_seen(now) > affinity_seen(entry))
		*entry = *now;
}

#define STATE	    AFFINITIES
#define STATE_KEY   struct affinity_key
#define STATE_VALUE struct affinity
#include "../upgrade/migrate/state.h"
#define affinities_get STATE_JOIN(AFFINITIES, _get)
#define affinities_set STATE_JOIN(AFFINITIES, _set)
