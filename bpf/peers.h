// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#pragma once

#include "select.h"

/*
 * What a UDP socket knows of services: which endpoint it talks to for one, and which one a datagram of an endpoint
 * is shown as. The first service is kept in the socket's own state, where no other socket can evict it; the map
 * peers, which all share, has the others. The most recent use of an endpoint's address decides what it is shown as.
 */

static __always_inline bool mapping_is_of(const struct mapping *m, const struct address *dialled, __be16 port)
{
	return address_equal(&m->dialled, dialled) && m->dialled_port == port;
}

static __always_inline bool mapping_leads_to(const struct mapping *m, const struct address *peer, __be16 port)
{
	return address_equal(&m->peer, peer) && m->peer_port == port;
}

static __always_inline struct mapping mapping_selected(const struct selection *s)
{
	return (struct mapping){
		.dialled = s->key.address,
		.peer = s->address,
		.dialled_port = s->key.port,
		.peer_port = s->port,
		.service = s->service,
		.endpoint = s->endpoint,
	};
}

static __always_inline void select_known(struct selection *s, const struct mapping *m)
{
	s->service = m->service;
	s->endpoint = m->endpoint;
	s->address = m->peer;
	s->port = m->peer_port;
}

/* Whether a UDP socket is connected to that address. */
static __always_inline bool connected_to(struct bpf_sock *sk, const struct address *peer, __be16 port)
{
	struct address a = address_mapped(sk->dst_ip4);

	barrier_var(a.word[3]); /* or clang picks one of two fields by an offset, and the verifier wants it constant */
	if (!port || sk->dst_port != port)
		return false;
	if (sk->family == FAMILY_INET6)
		a = (struct address){{sk->dst_ip6[0], sk->dst_ip6[1], sk->dst_ip6[2], sk->dst_ip6[3]}};
	return address_equal(&a, peer);
}

/*
 * Whether the socket is connected to what connection says. It is not after connect() with AF_UNSPEC, which runs no
 * hook, nor when the kernel failed a connect() after the hook, for want of a route: then the old peer stays.
 */
static __always_inline bool flow_connected(const struct flow *flow, struct bpf_sock *sk)
{
	return flow->flags & FLOW_SERVICE && connected_to(sk, &flow->connection.peer, flow->connection.peer_port);
}

/* Makes datagrams of the endpoint known as the service's, in the map. */
static __always_inline bool peer_show(struct flow *flow, const struct mapping *m, __u64 socket)
{
	struct peer_key key = peer_key(socket, &m->peer, m->peer_port, PEER_SERVICE);
	struct peer *known = peers_get(&key);
	struct peer peer = peer_of(&m->dialled, m->dialled_port, m->endpoint);

	flow->flags |= FLOW_PEERS;
	if (known && known->endpoint == m->endpoint && known->port == m->dialled_port &&
		address_equal(&known->address, &m->dialled))
		return true;
	return !peers_set(&key, &peer);
}

/* Makes the service's endpoint known, in the map. */
static __always_inline bool peer_keep(struct flow *flow, const struct mapping *m, __u64 socket)
{
	struct peer_key key = peer_key(socket, &m->dialled, m->dialled_port, PEER_ENDPOINT);
	struct peer *known = peers_get(&key);
	struct peer peer = peer_of(&m->peer, m->peer_port, m->endpoint);

	flow->flags |= FLOW_PEERS;
	if (known && known->endpoint == m->endpoint)
		return true;
	return !peers_set(&key, &peer);
}

/* Keeps m, as what its endpoint was used for last; false for want of memory. */
static __always_inline bool peer_remember(struct flow *flow, const struct mapping *m, __u64 socket)
{
	bool free = !(flow->flags & FLOW_SENT), same = !free && mapping_leads_to(&flow->sent, &m->peer, m->peer_port);

	if (free || mapping_is_of(&flow->sent, &m->dialled, m->dialled_port) ||
		endpoint_use(flow->sent.endpoint) == ENDPOINT_GONE) {
		/* For answers on their way; without memory they are shown as they come. */
		if (flow->flags & FLOW_SHOWN && !same)
			peer_show(flow, &flow->sent, socket);
		flow->layout = FLOW_LAYOUT;
		flow->sent = *m;
		flow->flags |= FLOW_SENT | FLOW_SHOWN;
		return true;
	}
	if (same)
		flow->flags &= ~FLOW_SHOWN;
	return peer_keep(flow, m, socket) && peer_show(flow, m, socket);
}

/* The endpoint that the socket has for the service s->key, while that is usable. */
static __always_inline bool peer_known(struct flow *flow, struct selection *s, __u64 socket)
{
	struct peer_key key;
	struct peer *known;

	if (flow->flags & FLOW_SENT && mapping_is_of(&flow->sent, &s->key.address, s->key.port)) {
		select_known(s, &flow->sent);
		return endpoint_use(s->endpoint) != ENDPOINT_GONE;
	}
	if (!(flow->flags & FLOW_PEERS))
		return false;
	key = peer_key(socket, &s->key.address, s->key.port, PEER_ENDPOINT);
	known = peers_get(&key);
	if (!known)
		return false;
	s->endpoint = known->endpoint;
	s->address = known->address;
	s->port = known->port;
	return endpoint_use(s->endpoint) != ENDPOINT_GONE;
}

/* The address is used as itself from now on: what comes from there is shown as it comes. */
static __always_inline void peer_forget(struct flow *flow, const struct address *a, __be16 port, __u64 socket)
{
	struct peer_key key;

	if (flow->flags & FLOW_SENT && mapping_leads_to(&flow->sent, a, port))
		flow->flags &= ~FLOW_SHOWN;
	if (!(flow->flags & FLOW_PEERS))
		return;
	key = peer_key(socket, a, port, PEER_SERVICE);
	peers_remove(&key);
}
