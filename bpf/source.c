//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/* Packets that leave a workload carry one of its addresses, or they leave no further. */
#include "select.h"
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

static __always_inline bool source_ip6_allowed(const struct address *source, const struct workload *workload, __u8 next)
{
	if (address_equal(source, &workload->ip6))
		return true;
	/* Neighbour discovery (RFC 4861) and duplicate address detection speak from fe80::/10 and from ::. */
	if (next == IPPROTO_ICMPV6 || next == IPPROTO_HOPOPTS)
		return address_is_zero(source) || (source->word[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
	return false;
}

static __always_inline bool source_allowed(struct __sk_buff *skb, const struct workload *workload)
{
	struct address source = address_mapped(0);
	__u8 next;

	switch (bpf_ntohs(skb->protocol)) {
	case ETH_P_ARP: /* answers for a foreign address reach only the node, whose table the primary CNI owns
			 */
		return true;
	case ETH_P_IP:
		if (bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct iphdr, saddr), &source.word[3], 4))
			return false;
		return address_equal(&source, &workload->ip4);
	case ETH_P_IPV6:
		if (bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, saddr), &source, 16) ||
			bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, nexthdr), &next, 1))
			return false;
		return source_ip6_allowed(&source, workload, next);
	}
	return false; /* tagged frames and other protocols: nothing could prove their source */
}

SEC("tcx/ingress")
int mesh_tcx(struct __sk_buff *skb)
{
	struct workload_key key = {.id = skb->ifindex, .by = WORKLOAD_BY_INTERFACE};
	struct workload *workload = bpf_map_lookup_elem(&workloads, &key);

	/* Not enrolled, or no longer: the link is about to go, and nothing is governed. */
	if (!workload || !(workload->flags & WORKLOAD_SOURCE_CHECK) || source_allowed(skb, workload))
		return TCX_NEXT;
	count(REFUSED_SOURCE);
	return TCX_DROP;
}
