// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#pragma once

/* Broken: the fields of schema 1 have changed places, and it is still called schema 1. */
#define AFFINITIES	affinities
#define AFFINITIES_KIND BPF_MAP_TYPE_LRU_HASH

struct affinity_key {
	__u64 workload;
	__u32 service;
	__u32 incarnation;
};

struct affinity {
	__u64 seen;
	__u64 endpoint;
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
	return a->endpoint;
}

static __always_inline __u64 affinity_seen(const struct affinity *a)
{
	return a->seen;
}

static __always_inline void affinity_touch(struct affinity *a, __u64 now)
{
	a->seen = now;
}
