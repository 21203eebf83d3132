//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/*
 * The engine's only way to change what can be read: each change is one aligned store, in order. The system
 * call for map updates copies values byte by byte as it likes, so readers could see half of one.
 */
#include "select.h"

enum publish_what {
	PUBLISH_SLOT = 1, /* slots[index] = value */
	PUBLISH_STATE,	  /* endpoints[index].state = value */
	PUBLISH_RANGE,	  /* services[index / LEVELS].ranges[index % LEVELS] = value */
};

struct publication {
	__u32 what; /* enum publish_what */
	__u32 index;
	__u64 value;
};

struct publish_request {
	__u64 publications; /* address of an array in the caller's memory */
	__u32 count;
	__u32 epoch; /* of the caller; one that is over changes nothing */
	__u32 done;  /* out: how many were made */
	__u32 error; /* out: why not all were, enum publish_error */
};

enum publish_error {
	PUBLISH_STALE = 1, /* the epoch is over */
	PUBLISH_FAULT,	   /* the array could not be read */
	PUBLISH_INDEX,	   /* there is no such index, or nothing of that kind */
};

static __always_inline bool publish_one(const struct publication *p)
{
	__u32 index = p->index;
	struct endpoint *endpoint;
	struct service *service;
	__u32 *slot;

	switch (p->what) {
	case PUBLISH_SLOT:
		slot = bpf_map_lookup_elem(&slots, &index);
		if (slot)
			__sync_lock_test_and_set(slot, (__u32)p->value); /* an exchange is a full barrier, too */
		return slot;
	case PUBLISH_STATE:
		endpoint = bpf_map_lookup_elem(&endpoints, &index);
		if (endpoint)
			__sync_lock_test_and_set(&endpoint->state, (__u32)p->value);
		return endpoint;
	case PUBLISH_RANGE:
		index /= LEVELS;
		service = bpf_map_lookup_elem(&services, &index);
		if (service)
			__sync_lock_test_and_set(&service->ranges[p->index % LEVELS], p->value);
		return service;
	}
	return false;
}

static long publish_next(__u32 i, struct publish_request *request)
{
	struct publication p;

	if (word_epoch(word_read()) != request->epoch)
		request->error = PUBLISH_STALE;
	else if (bpf_copy_from_user(&p, sizeof(p), (void *)(request->publications + i * sizeof(p))))
		request->error = PUBLISH_FAULT;
	else if (!publish_one(&p))
		request->error = PUBLISH_INDEX;
	if (request->error)
		return 1;
	request->done++;
	return 0;
}

SEC("syscall")
int publish(struct publish_request *ctx)
{
	struct publish_request request = *ctx;
	__u64 count = request.count;

	request.done = request.error = 0;
	/*
	 * Zero-extended: bpf_loop takes 32 bits, so clang 19 hands it the 64 in which it has copied count and epoch together,
	 * and the verifier of Linux 6.18 compares all of them where it inlines the loop: then it runs no times at all, unless
	 * the epoch is 0. TestPublishRefuses fails without it.
	 */
	asm volatile("" : "+r"(count));
	bpf_loop(count, publish_next, &request, 0);
	ctx->done = request.done;
	ctx->error = request.error;
	return 0;
}
