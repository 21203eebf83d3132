// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#pragma once

/*
 * What UDP sockets know, through three schemas, of releases to upgrade between; PEER_SCHEMA is that of the release.
 *
 *	1 as bpf/peer.h has it                       LRU hash
 *	2 the same                                   hash
 *	3 the fields change places                   equal size, LRU hash
 */
#define PEER1                                                                                                          \
	{                                                                                                              \
		struct address address;                                                                                \
		__u64 endpoint;                                                                                        \
		__be16 port;                                                                                           \
		__u16 reserved;                                                                                        \
		__u32 dead;                                                                                            \
	}
#define PEER2 PEER1
#define PEER3                                                                                                          \
	{                                                                                                              \
		__u32 dead;                                                                                            \
		__u16 reserved;                                                                                        \
		__be16 port;                                                                                           \
		__u64 endpoint;                                                                                        \
		struct address address;                                                                                \
	}

struct peer_key {
	struct address address;
	__u64 socket;
	__be16 port;
	__u16 direction;
	__u32 pad;
};

struct peer STATE_JOIN(PEER, PEER_SCHEMA);
struct peer1 PEER1;
struct peer3 PEER3;

#if PEER_SCHEMA == 1
#define PEERS peers
#else
#define PEERS STATE_JOIN(peers_v, PEER_SCHEMA)
#endif

#if PEER_SCHEMA == 2
#define PEERS_KIND BPF_MAP_TYPE_HASH
#else
#define PEERS_KIND BPF_MAP_TYPE_LRU_HASH
#endif

static __always_inline struct peer_key peer_key(__u64 socket, const struct address *a, __be16 port, __u16 direction)
{
	return (struct peer_key){.address = *a, .socket = socket, .port = port, .direction = direction};
}

static __always_inline struct peer peer_of(const struct address *a, __be16 port, __u64 endpoint)
{
	return (struct peer){.address = *a, .endpoint = endpoint, .port = port};
}

#if PEER_SCHEMA >= 2
SEC("step") int peers_v2_up(const struct peer_key *key, const struct peer1 *old, struct peer1 *new)
{
	*new = *old;
	return 0;
}

SEC("step") int peers_v2_down(const struct peer_key *key, const struct peer1 *new, struct peer1 *old)
{
	*old = *new;
	return 0;
}
#endif

#if PEER_SCHEMA >= 3
SEC("step") int peers_v3_up(const struct peer_key *key, const struct peer1 *old, struct peer3 *new)
{
	new->address = old->address;
	new->endpoint = old->endpoint;
	new->port = old->port;
	return 0;
}

SEC("step") int peers_v3_down(const struct peer_key *key, const struct peer3 *new, struct peer1 *old)
{
	old->address = new->address;
	old->endpoint = new->endpoint;
	old->port = new->port;
	return 0;
}
#endif
