//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What a wire does to the packets that arrive at one of its ends. One object is loaded per end.
 *
 * A packet to be delayed leaves for a TAP device, whose reader writes it back when it is due; from there it returns to
 * the wire as if it had just arrived, with a mark that lets it pass.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/types.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <stddef.h>

enum wire_drop {
	WIRE_DROP_NONE,
	WIRE_DROP_ALL,
	WIRE_DROP_HALF, /* the packets of about half of all flows */
};

/* Times are CLOCK_MONOTONIC, nanoseconds. */
struct wire_config {
	enum wire_drop drop;
	__u32 loss;   /* a packet is lost if a random u32 is lower; 0 loses none */
	__u64 seed;   /* of that random number */
	__u64 start;  /* since when it flaps */
	__u64 period; /* 0: it is down all the time; else it is down for the first down of each period */
	__u64 down;
	__u32 tap;     /* index of the device that delays; 0 for none */
	__u32 ifindex; /* of the wire */
	__u32 mark;    /* of packets that have been delayed */
	__u32 pad;
};

volatile const struct wire_config config;

enum wire_count {
	WIRE_SEEN,
	WIRE_DROPPED,
	WIRE_DELAYED,
	WIRE_RETURNED,
	WIRE_COUNTS,
};

/* Makes it reach BTF, and so Go, though no map or program has it in its type. */
const enum wire_count *exported __attribute__((unused));

/* Index: enum wire_count. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, WIRE_COUNTS);
	__type(key, __u32);
	__type(value, __u64);
} wire_counts SEC(".maps");

static __always_inline __u64 count(enum wire_count which)
{
	__u64 *n = bpf_map_lookup_elem(&wire_counts, &which);

	return n ? __sync_fetch_and_add(n, 1) : 0;
}

/* The n-th number of a seed: splitmix64 (Steele, Lea, Flood 2014). */
static __always_inline __u32 draw(__u64 seed, __u64 n)
{
	__u64 z = seed + (n + 1) * 0x9e3779b97f4a7c15ULL;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return (z ^ (z >> 31)) >> 32;
}

/* The ports of a packet at an offset, the same for both directions; 0 if it has none. */
static __always_inline __u32 flow_ports(struct __sk_buff *skb, __u8 protocol, __u32 offset)
{
	__be16 ports[2];

	if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP)
		return 0;
	if (bpf_skb_load_bytes(skb, offset, ports, sizeof(ports)))
		return 0;
	return (__u32)(ports[0] ^ ports[1]) | 1 << 16;
}

/*
 * Whether a flow is of the half that is dropped. Both directions of a flow are of the same half; what is no flow
 * (ARP, ICMP, neighbour discovery, fragments but the first) is of neither. The hash of the kernel will not do: a sender
 * that sees losses changes it.
 */
static __always_inline _Bool is_of_half(struct __sk_buff *skb)
{
	struct ipv6hdr v6;
	struct iphdr v4;
	__u32 ports, mixed;
	int i;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (bpf_skb_load_bytes(skb, ETH_HLEN, &v4, sizeof(v4)) || v4.frag_off & bpf_htons(0x1fff))
			return 0;
		ports = flow_ports(skb, v4.protocol, ETH_HLEN + v4.ihl * 4);
		mixed = v4.saddr ^ v4.daddr;
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		if (bpf_skb_load_bytes(skb, ETH_HLEN, &v6, sizeof(v6)))
			return 0;
		ports = flow_ports(skb, v6.nexthdr, ETH_HLEN + sizeof(v6));
		mixed = 0;
		for (i = 0; i < 4; i++)
			mixed ^= v6.saddr.in6_u.u6_addr32[i] ^ v6.daddr.in6_u.u6_addr32[i];
	} else {
		return 0;
	}
	return ports && draw(config.seed ^ mixed, ports) & 1;
}

/*
 * Whether a packet may be of somebody's traffic, which is routed: not ARP, not what the kernels at both ends say to each
 * other on the link (neighbour discovery, multicast reports). That is dropped with everything else, but never counted,
 * lost or delayed: it would make a fault look active that nothing runs into, and the same seed lose another packet.
 */
static __always_inline _Bool is_traffic(struct __sk_buff *skb)
{
	struct ipv6hdr v6;
	__be32 to;

	if (skb->protocol == bpf_htons(ETH_P_IP))
		return !bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct iphdr, daddr), &to, sizeof(to)) &&
		       (to & bpf_htonl(0xf0000000)) != bpf_htonl(0xe0000000);
	if (skb->protocol != bpf_htons(ETH_P_IPV6) || bpf_skb_load_bytes(skb, ETH_HLEN, &v6, sizeof(v6)))
		return 0;
	return v6.daddr.in6_u.u6_addr8[0] != 0xff &&
	       (v6.saddr.in6_u.u6_addr16[0] & bpf_htons(0xffc0)) != bpf_htons(0xfe80);
}

static __always_inline _Bool is_down(void)
{
	if (!config.period)
		return 1;
	return (bpf_ktime_get_ns() - config.start) % config.period < config.down;
}

static __always_inline _Bool is_lost(struct __sk_buff *skb, __u64 n)
{
	switch (config.drop) {
	case WIRE_DROP_ALL:
		if (is_down())
			return 1;
		break;
	case WIRE_DROP_NONE:
		break;
	case WIRE_DROP_HALF:
		if (is_down() && is_of_half(skb))
			return 1;
		break;
	}
	return config.loss && draw(config.seed, n) < config.loss;
}

SEC("tcx/ingress")
int wire_arrive(struct __sk_buff *skb)
{
	__u64 n;

	if (config.tap && skb->mark == config.mark) {
		skb->mark = 0;
		return TC_ACT_UNSPEC;
	}
	if (!is_traffic(skb))
		return config.drop == WIRE_DROP_ALL && is_down() ? TC_ACT_SHOT : TC_ACT_UNSPEC;
	n = count(WIRE_SEEN);
	if (is_lost(skb, n)) {
		count(WIRE_DROPPED);
		return TC_ACT_SHOT;
	}
	if (!config.tap)
		return TC_ACT_UNSPEC;
	count(WIRE_DELAYED);
	return bpf_redirect(config.tap, 0);
}

SEC("tcx/ingress")
int wire_return(struct __sk_buff *skb)
{
	count(WIRE_RETURNED);
	skb->mark = config.mark;
	return bpf_redirect(config.ifindex, BPF_F_INGRESS);
}

char _license[] SEC("license") = "Dual BSD/GPL";
