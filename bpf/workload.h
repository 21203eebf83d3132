// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#pragma once

#include "address.h"

/*
 * Enrolment, frozen ABI: what makes a pod a workload. One map, two ways to find a workload, because no hook
 * has both: sockets know their network namespace, packets at a veth only its interface.
 */
enum workload_by {
	WORKLOAD_BY_NETNS = 1,	   /* id is the cookie of the pod's network namespace */
	WORKLOAD_BY_INTERFACE = 2, /* id is the index of the pod's veth on the node */
};

struct workload_key {
	__u64 id;
	__u32 by; /* enum workload_by */
	__u32 pad;
};

enum workload_flag {
	WORKLOAD_CANARY = 1 << 0,	/* takes every canary generation */
	WORKLOAD_SOURCE_CHECK = 1 << 1, /* packets that leave it must carry one of its addresses */
};

struct workload {
	struct address ip4; /* all zero: it has none */
	struct address ip6;
	__u64 netns;	   /* cookie */
	__u32 interface;   /* index of its veth in the node's namespace; 0: none found */
	__u32 incarnation; /* a pod enrolled again is another workload */
	__u32 flags;	   /* enum workload_flag */
	__u32 network;	   /* scope of its addresses; 0 is the node's own */
	__u64 reserved;
};

/* Names for people; no program reads them. NUL-terminated. */
struct workload_name {
	char pod[320];	 /* namespace/name */
	char netns[192]; /* path of the namespace's file */
};

_Static_assert(sizeof(struct workload_key) == 16, "frozen");
_Static_assert(sizeof(struct workload) == 64, "frozen");
