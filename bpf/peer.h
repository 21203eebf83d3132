// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#pragma once

#include "address.h"

/* Unconnected UDP, from the second service of a socket onwards: its endpoint, and the service that a reply is of. */
enum peer_direction {
	PEER_ENDPOINT = 1, /* key holds a service's address, value an endpoint's */
	PEER_SERVICE = 2,  /* the other way round */
};

/* Another release may have another layout: PEER_LAYOUT is a header with one, of a release that upgrades are tested with. */
#ifdef PEER_LAYOUT
#include PEER_LAYOUT
#else

#define PEERS	   peers
#define PEERS_KIND BPF_MAP_TYPE_LRU_HASH

struct peer_key {
	struct address address;
	__u64 socket; /* cookie */
	__be16 port;
	__u16 direction;
	__u32 pad;
};

struct peer {
	struct address address;
	__u64 endpoint; /* endpoint_ref */
	__be16 port;
	__u16 reserved;
	__u32 dead; /* a tombstone, enum entry_state, while entries move to another layout */
};

static __always_inline struct peer_key peer_key(__u64 socket, const struct address *a, __be16 port, __u16 direction)
{
	return (struct peer_key){.address = *a, .socket = socket, .port = port, .direction = direction};
}

static __always_inline struct peer peer_of(const struct address *a, __be16 port, __u64 endpoint)
{
	return (struct peer){.address = *a, .endpoint = endpoint, .port = port};
}

#endif

/*
 * Writers: sendmsg; connect, of what a UDP socket was connected to. Readers: sendmsg, recvmsg, getpeername, of sockets
 * with FLOW_PEERS. A miss: an endpoint is chosen anew, or the datagram is shown as it came.
 */
struct {
	__uint(type, PEERS_KIND);
	__uint(max_entries, 16384);
	__type(key, struct peer_key);
	__type(value, struct peer);
} PEERS SEC(".maps");

/* What old code wrote last, after new code had taken the entry over, is what the socket did last: it holds its lock. */
static __always_inline void STATE_JOIN(PEERS, _merge)(
	struct peer *entry, const struct peer *then, const struct peer *now)
{
	if (now->port && (now->endpoint != then->endpoint || now->port != then->port ||
				 !address_equal(&now->address, &then->address))) {
		entry->address = now->address;
		entry->endpoint = now->endpoint;
		entry->port = now->port;
	}
}

#define STATE		PEERS
#define STATE_KEY	struct peer_key
#define STATE_VALUE	struct peer
#define STATE_TOMBSTONE dead
#include "../upgrade/migrate/state.h"
#define peers_get    STATE_JOIN(PEERS, _get)
#define peers_set    STATE_JOIN(PEERS, _set)
#define peers_remove STATE_JOIN(PEERS, _remove)
