// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#pragma once

#include "service.h"

/*
 * The state of a client socket, frozen ABI: only the first two fields mean anything across generations. It
 * dies with the socket. Server sockets have none: that halves what a connection costs.
 */
struct socket {
	__u16 stamp;  /* generation that the connection runs; see word_run */
	__u16 layout; /* of the rest, enum flow_layout; 0: nothing was written yet */
	__u32 rest[31];
};

enum flow_layout {
	FLOW_LAYOUT = 1,
};

enum flow_flag {
	FLOW_SERVICE = 1 << 0, /* connection holds what the last connect() to a service gave */
	FLOW_SENT = 1 << 1,    /* sent holds a service and its endpoint */
	FLOW_SHOWN = 1 << 2,   /* datagrams of the endpoint in sent are shown as the service's */
	FLOW_PEERS = 1 << 3,   /* the map peers has entries of the socket */
};

/* An address of a service, and the endpoint that it stands for on one socket. */
struct mapping {
	struct address dialled; /* as the application sees its peer */
	struct address peer;	/* as the network does */
	__be16 dialled_port;
	__be16 peer_port;
	__u32 service;	/* index; 0: not known */
	__u64 endpoint; /* endpoint_ref */
};

/*
 * What this generation keeps in the rest of struct socket. The kernel holds the socket's lock while the hooks of
 * connect, sendmsg, recvmsg and getpeername run (BPF_CGROUP_RUN_SA_PROG_LOCK in include/linux/bpf-cgroup.h, and
 * inet_getname), so threads that share a socket never see half of a change. Only dump_flows reads without it.
 */
struct flow {
	__u16 stamp;
	__u16 layout;
	__u16 ran;  /* the generation whose program saw this socket last */
	__u8 flags; /* enum flow_flag */
	__u8 protocol;
	struct mapping connection;
	__u64 start; /* CLOCK_BOOTTIME of connect(), nanoseconds */
	__u32 service_incarnation;
	__u32 identity; /* of the peer; filled by authorization */
	struct mapping sent;
	__u8 reserved[8];
};

_Static_assert(sizeof(struct socket) == 128 && sizeof(struct flow) == 128, "frozen");
