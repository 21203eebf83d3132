//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/*
 * Reads services the way connect() does, as fast as it can, and checks that what it reads was ever true: the
 * address of an endpoint is {tag, version, version, tag}, where tag is the last word of the address of its
 * service.
 */
#include "../../../bpf/select.h"

enum reader_limits {
	READER_BATCH = 1024, /* look-ups in one run */
};

struct reader_result {
	__u64 selected; /* an endpoint, as it should be */
	__u64 absent;	/* no such service, or no endpoint: it comes and goes */
	__u64 torn;	/* half of one endpoint and half of another */
	__u64 foreign;	/* an endpoint of another service */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct reader_result);
} results SEC(".maps");

const struct exported {
	enum reader_limits limits;
} *exported __attribute__((unused)); /* to reach BTF, and so Go */

volatile const __u32 reader_services = 1; /* how many services there are; their tags count up from base */
volatile const __u32 reader_base;	  /* the first tag, host order */

static long read_next(__u32 i, struct reader_result *result)
{
	__u32 tag = reader_base + bpf_get_prandom_u32() % reader_services;
	struct selection s = {.key.address = {{bpf_htonl(0xfd000096), 0, 0, bpf_htonl(tag)}},
		.key.port = bpf_htons(80),
		.key.protocol = IPPROTO_TCP};
	enum outcome outcome = OUTCOME_PASS;
	struct service *service = select_service(&s, &outcome);

	if (!service || !select_by_level(&s, service))
		result->absent++;
	else if (s.address.word[1] != s.address.word[2] || s.address.word[0] != s.address.word[3])
		result->torn++;
	else if (s.address.word[0] != bpf_htonl(tag))
		result->foreign++;
	else
		result->selected++;
	return 0;
}

/* A tc program, not one of type syscall: only readers of that kind are waited for by a grace period. */
SEC("tc")
int read_services(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct reader_result *total = bpf_map_lookup_elem(&results, &zero);
	struct reader_result result = {};

	if (!total)
		return 0;
	bpf_loop(READER_BATCH, read_next, &result, 0);
	total->selected += result.selected;
	total->absent += result.absent;
	total->torn += result.torn;
	total->foreign += result.foreign;
	return 0;
}

char _license[] SEC("license") = "Dual BSD/GPL";
