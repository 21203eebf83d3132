// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#pragma once

#include "address.h"

struct service_key {
	struct address address;
	__u32 network;
	__be16 port;   /* network order; 0 with protocol 0: "this is a service address" */
	__u8 protocol; /* IPPROTO_TCP or IPPROTO_UDP */
	__u8 pad;
};

/* Endpoints in order of preference; the first level that has any is used. */
enum service_level {
	LEVEL_NODE,    /* on the client's node */
	LEVEL_ZONE,    /* in its zone */
	LEVEL_READY,   /* anywhere */
	LEVEL_SERVING, /* terminating, but still serving: better than none */
	LEVELS,
};

enum service_flag {
	SERVICE_AFFINITY = 1 << 0,   /* a workload stays on its endpoint */
	SERVICE_CONSISTENT = 1 << 1, /* slots are a Maglev table, indexed by a hash of the workload's address */
};

/*
 * A service, one per address:port:protocol. All but ranges is immutable while reachable, and the slot is
 * reused only after a grace period; so comparing key proves that the whole record is the dialled service's.
 */
struct service {
	struct service_key key;
	__u32 incarnation; /* of this slot: {slot, incarnation} never means two services */
	__u32 flags;	   /* enum service_flag */
	__u32 affinity;	   /* seconds */
	__be16 waypoint_port;
	__u16 pad;
	struct address waypoint;
	__u64 ranges[LEVELS]; /* first:32 (low) | count:32 (high) of slots; each changes by one store */
};

/* Immutable while reachable but for state, which changes by one store. */
struct endpoint {
	struct address address;
	__be16 port;
	__u16 flags;	   /* none yet; encryption will need one */
	__u32 node;	   /* dense id of its node; 0 is unknown */
	__u32 incarnation; /* of this index, never 0 */
	__u32 state;	   /* incarnation; its complement while the endpoint drains, 0 once it is gone */
};

_Static_assert(sizeof(struct service_key) == 24, "hashed as a whole: no hole");
_Static_assert(sizeof(struct service) == 88, "services is sized by it");
_Static_assert(sizeof(struct endpoint) == 32, "endpoints is sized by it");

/* {endpoint, incarnation} in one aligned word, so that it cannot be read half changed. */
static __always_inline __u64 endpoint_ref(__u32 index, __u32 incarnation)
{
	return (__u64)incarnation << 32 | index;
}
