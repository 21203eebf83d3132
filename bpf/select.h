// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#pragma once

#include "maps.h"

/* Which endpoint a client gets. */

struct selection {
	struct service_key key; /* in: what was dialled */
	struct bpf_sock_addr *client;
	__u64 endpoint;		/* out: endpoint_ref */
	__u32 service;		/* out: index */
	__u32 incarnation;	/* out: of the service */
	struct address address; /* out: of the endpoint */
	__be16 port;		/* out */
	__u16 pad;
};

enum outcome {
	OUTCOME_SELECTED,
	OUTCOME_PASS,	/* not a service */
	OUTCOME_REFUSE, /* counted already */
};

static __always_inline bool service_key_equal(const struct service_key *a, const struct service_key *b)
{
	return address_equal(&a->address, &b->address) && a->network == b->network && a->port == b->port &&
	       a->protocol == b->protocol;
}

static __always_inline enum outcome refuse(enum count why)
{
	count(why);
	return config.controls & CONTROL_MISS_PASSES ? OUTCOME_PASS : OUTCOME_REFUSE;
}

static __always_inline __u32 slot_read(__u32 index)
{
	__u32 *slot = bpf_map_lookup_elem(&slots, &index);

	return slot ? *(volatile __u32 *)slot : 0;
}

/* Fills the outputs from endpoint index; false if there is no such endpoint. */
static __always_inline bool select_endpoint(struct selection *s, __u32 index)
{
	struct endpoint *endpoint = bpf_map_lookup_elem(&endpoints, &index);

	if (!index || !endpoint)
		return false;
	s->endpoint = endpoint_ref(index, endpoint->incarnation);
	s->address = endpoint->address;
	s->port = endpoint->port;
	return true;
}

/* What may become of an endpoint that was chosen earlier. */
enum endpoint_use {
	ENDPOINT_GONE,
	ENDPOINT_DRAINS, /* it serves what it has, and new clients only where there is no better */
	ENDPOINT_READY,
};

static __always_inline enum endpoint_use endpoint_use(__u64 ref)
{
	__u32 index = ref, incarnation = ref >> 32, state;
	struct endpoint *endpoint = bpf_map_lookup_elem(&endpoints, &index);

	if (!endpoint)
		return ENDPOINT_GONE;
	state = *(volatile __u32 *)&endpoint->state;
	if (state == incarnation)
		return ENDPOINT_READY;
	return state == ~incarnation ? ENDPOINT_DRAINS : ENDPOINT_GONE;
}

static __always_inline __u32 position(const struct selection *s, const struct service *service, __u32 size)
{
	struct workload_key key = {.id = bpf_get_netns_cookie(s->client), .by = WORKLOAD_BY_NETNS};
	struct workload *workload;

	if (!(service->flags & SERVICE_CONSISTENT))
		return (__u64)bpf_get_prandom_u32() * size >> 32;
	workload = bpf_map_lookup_elem(&workloads, &key);
	if (!workload || !size)
		return 0;
	return address_hash(address_is_mapped(&s->key.address) ? &workload->ip4 : &workload->ip6) % size;
}

static __always_inline bool select_by_level(struct selection *s, const struct service *service)
{
#pragma unroll
	for (int level = 0; level < LEVELS; level++) {
		__u64 range = *(volatile __u64 *)&service->ranges[level];
		__u32 size = range >> 32;

		if (size)
			return select_endpoint(s, slot_read((__u32)range + position(s, service, size)));
	}
	return false;
}

/* Whether a workload stays with its endpoint: one that drains gets new connections only for want of others. */
static __always_inline bool affinity_holds(const struct service *service, __u64 ref)
{
	enum endpoint_use use = endpoint_use(ref);

	if (use != ENDPOINT_DRAINS)
		return use == ENDPOINT_READY;
#pragma unroll
	for (int level = 0; level < LEVEL_SERVING; level++)
		if (*(volatile __u64 *)&service->ranges[level] >> 32)
			return false;
	return true;
}

static __always_inline bool select_by_affinity(struct selection *s, const struct service *service)
{
	struct affinity_key key = affinity_key(bpf_get_netns_cookie(s->client), s->service, s->incarnation);
	struct affinity *known = affinities_get(&key), fresh;
	__u64 now = bpf_ktime_get_boot_ns();

	if (known) {
		__u64 ref = affinity_endpoint(known);
		__u64 idle = now - affinity_seen(known);

		if (idle < service->affinity * 1000000000ULL && affinity_holds(service, ref) &&
			select_endpoint(s, ref)) {
			affinity_touch(known, now);
			return true;
		}
	}
	if (!select_by_level(s, service))
		return false;
	fresh = affinity_of(s->endpoint, now);
	affinities_set(&key, &fresh); /* LRU: makes room by itself */
	return true;
}

/*
 * The service that was dialled. The hash gives an index in one word, and the record at that index repeats the
 * key: an entry that is reused for another service under our eyes is seen, and looked up again.
 */
static __always_inline struct service *select_service(struct selection *s, enum outcome *otherwise)
{
#pragma unroll
	for (int try = 0; try < 3; try++) {
		__u32 *index = bpf_map_lookup_elem(&service_ids, &s->key);
		struct service *service;

		if (!index) {
			struct service_key any = {.address = s->key.address, .network = s->key.network};

			*otherwise = OUTCOME_PASS;
			if (bpf_map_lookup_elem(&service_ids, &any))
				*otherwise = refuse(REFUSED_NO_PORT);
			return NULL;
		}
		s->service = *(volatile __u32 *)index;
		service = bpf_map_lookup_elem(&services, &s->service);
		if (service && (config.controls & CONTROL_TRUST_SLOT || service_key_equal(&service->key, &s->key))) {
			s->incarnation = service->incarnation;
			return service;
		}
	}
	*otherwise = refuse(REFUSED_CHANGING);
	return NULL;
}

static __always_inline enum outcome select(struct selection *s)
{
	enum outcome otherwise = OUTCOME_PASS;
	struct service *service = select_service(s, &otherwise);
	bool found;

	if (!service)
		return otherwise;
	if (config.controls & CONTROL_REFUSE_SOME && bpf_get_prandom_u32() % 3 == 0)
		return refuse(REFUSED_NO_ENDPOINT);
	if (service->flags & SERVICE_AFFINITY)
		found = select_by_affinity(s, service);
	else
		found = select_by_level(s, service);
	return found ? OUTCOME_SELECTED : refuse(REFUSED_NO_ENDPOINT);
}
