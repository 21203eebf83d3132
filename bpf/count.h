// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#pragma once

/*
 * Everything that is counted, one counter each, per generation. What refuses traffic is a REFUSED_; there is no other.
 * New ones come last: a release reads the counters of the one before it, to compare the two.
 */
enum count {
	COUNT_CONNECT,	     /* connect() to a service was given an endpoint */
	COUNT_SEND,	     /* an unconnected UDP socket was given an endpoint of a service */
	COUNT_PASSED,	     /* connect() or sendto() to what is not a service: untouched */
	COUNT_ESTABLISHED,   /* TCP handshakes of clients that finished */
	COUNT_CLOSED,	     /* established TCP connections of clients that ended */
	COUNT_FAILED,	     /* TCP handshakes of clients that did not finish */
	COUNT_ACCEPTED,	     /* TCP handshakes of servers that finished */
	COUNT_INBOUND,	     /* new connections and datagrams seen in a workload's namespace */
	COUNT_MESSAGES,	     /* messages of accelerated sockets */
	COUNT_MOVED,	     /* sockets that another generation had run before */
	COUNT_DESTROYED,     /* connected UDP sockets whose endpoint was gone */
	REFUSED_NO_ENDPOINT, /* the service has no usable endpoint */
	REFUSED_NO_PORT,     /* the service has no such port */
	REFUSED_NO_MEMORY,   /* no memory for the state of the socket or of its peer */
	REFUSED_CHANGING,    /* the record of the service changed three times while it was read */
	REFUSED_SOURCE,	     /* a packet left a workload with an address that is not its own */
	COUNT_RESET,	     /* of COUNT_CLOSED, those that neither side had begun to close */
	COUNT_HANDSHAKE_NS,  /* from connect() to the end of the handshake, all of COUNT_ESTABLISHED together */
	COUNTS,
};

/* Hooks, as entry programs count a slot that was empty: damage. */
enum hook {
	HOOK_CONNECT4,
	HOOK_CONNECT6,
	HOOK_SENDMSG4,
	HOOK_SENDMSG6,
	HOOK_RECVMSG4,
	HOOK_RECVMSG6,
	HOOK_GETPEERNAME4,
	HOOK_GETPEERNAME6,
	HOOK_SOCK_OPS,
	HOOK_SK_LOOKUP,
	HOOK_TCX,
	HOOK_SK_MSG,
	HOOKS,
};
