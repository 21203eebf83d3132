//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/* sendto() of UDP: a socket stays with one endpoint of a service while that is usable, or QUIC and DTLS would break. */
#include "select.h"

static __always_inline struct peer_key peer_key(__u64 socket, const struct address *a, __be16 port, __u16 direction)
{
	return (struct peer_key){.address = *a, .socket = socket, .port = port, .direction = direction};
}

/* Makes the endpoint's replies known as the service's. Most recent wins where two services share an endpoint. */
static __always_inline bool peer_remember_service(const struct selection *s, __u64 socket)
{
	struct peer_key key = peer_key(socket, &s->address, s->port, PEER_SERVICE);
	struct peer *known = bpf_map_lookup_elem(&peers, &key);
	struct peer peer = {.address = s->key.address, .endpoint = s->endpoint, .port = s->key.port};

	if (known && known->endpoint == s->endpoint && known->port == s->key.port &&
		address_equal(&known->address, &s->key.address))
		return true;
	return !bpf_map_update_elem(&peers, &key, &peer, BPF_ANY);
}

static __always_inline enum outcome sendmsg_select(struct bpf_sock_addr *ctx, struct selection *s)
{
	__u64 socket = bpf_get_socket_cookie(ctx);
	struct peer_key key;
	struct peer *known;
	enum outcome outcome;

	flow_of(ctx->sk);
	s->key.port = ctx->user_port;
	s->key.protocol = IPPROTO_UDP;
	s->netns = bpf_get_netns_cookie(ctx);
	key = peer_key(socket, &s->key.address, s->key.port, PEER_ENDPOINT);
	known = bpf_map_lookup_elem(&peers, &key);
	if (known && endpoint_use(known->endpoint) != ENDPOINT_GONE) {
		s->endpoint = known->endpoint;
		s->address = known->address;
		s->port = known->port;
		return peer_remember_service(s, socket) ? OUTCOME_SELECTED : refuse(REFUSED_NO_MEMORY);
	}
	outcome = select(s);
	if (outcome == OUTCOME_SELECTED) {
		struct peer peer = {.address = s->address, .endpoint = s->endpoint, .port = s->port};

		if (bpf_map_update_elem(&peers, &key, &peer, BPF_ANY) || !peer_remember_service(s, socket))
			return refuse(REFUSED_NO_MEMORY);
		count(COUNT_SEND);
	} else if (outcome == OUTCOME_PASS) {
		count(COUNT_PASSED);
	}
	return outcome;
}

SEC("cgroup/sendmsg4")
int mesh_sendmsg4(struct bpf_sock_addr *ctx)
{
	struct selection s = {.key.address = address_mapped(ctx->user_ip4)};

	switch (sendmsg_select(ctx, &s)) {
	case OUTCOME_SELECTED:
		ctx->user_ip4 = s.address.word[3];
		ctx->user_port = s.port;
		return PROCEED;
	case OUTCOME_PASS:
		return PROCEED;
	case OUTCOME_REFUSE:
		break;
	}
	return turn_away();
}

SEC("cgroup/sendmsg6")
int mesh_sendmsg6(struct bpf_sock_addr *ctx)
{
	struct selection s = {.key.address = address_dialled6(ctx)};

	switch (sendmsg_select(ctx, &s)) {
	case OUTCOME_SELECTED:
		redirect6(ctx, &s.address, s.port);
		return PROCEED;
	case OUTCOME_PASS:
		return PROCEED;
	case OUTCOME_REFUSE:
		break;
	}
	return turn_away();
}
