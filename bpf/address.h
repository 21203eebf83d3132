// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#pragma once

#include <linux/bpf.h>
#include <linux/types.h>
#include <linux/in.h>
#include <stdbool.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

/* The one form of an address: 16 bytes in network order, IPv4 as ::ffff:a.b.c.d (RFC 4291, 2.5.5.2). */
struct address {
	__be32 word[4];
};

enum family {
	FAMILY_INET = 2,
	FAMILY_INET6 = 10,
};

static __always_inline struct address address_mapped(__be32 ip4)
{
	return (struct address){{0, 0, bpf_htonl(0xffff), ip4}};
}

static __always_inline bool address_is_mapped(const struct address *a)
{
	return !a->word[0] && !a->word[1] && a->word[2] == bpf_htonl(0xffff);
}

static __always_inline bool address_equal(const struct address *a, const struct address *b)
{
	return a->word[0] == b->word[0] && a->word[1] == b->word[1] && a->word[2] == b->word[2] &&
	       a->word[3] == b->word[3];
}

static __always_inline bool address_is_zero(const struct address *a)
{
	return !(a->word[0] | a->word[1] | a->word[2] | a->word[3]);
}

/* A 32-bit hash that is the same on every node and in every release: placement by it is a promise to users. */
static __always_inline __u32 address_hash(const struct address *a)
{
	__u32 hash = 0;

#pragma unroll
	for (int i = 0; i < 4; i++) {
		hash ^= bpf_ntohl(a->word[i]);
		hash ^= hash >> 16; /* the finalizer of MurmurHash3 */
		hash *= 0x85ebca6b;
		hash ^= hash >> 13;
		hash *= 0xc2b2ae35;
		hash ^= hash >> 16;
	}
	return hash;
}
