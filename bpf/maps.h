// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#pragma once

#include "config.h"
#include "count.h"
#include "flow.h"
#include "kernel.h"
#include "workload.h"
#include "../upgrade/word.h"
#include "../upgrade/migrate/migrate.h"

/*
 * Every map there is. max_entries are the defaults; flags of the agent set them at first start.
 *
 * Frozen ABI, shared by all generations and by the entry programs.
 */

/* Writer: the program super_change. Readers: entry programs, publish. A miss cannot happen. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct super_block);
} super SEC(".maps");

/* Writer: enrolment. Readers: entry programs, source check. A miss: not enrolled, so untouched. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 2000);
	__type(key, struct workload_key);
	__type(value, struct workload);
} workloads SEC(".maps");

/* Writer: enrolment. Readers: people, by name; the agent, to enter the namespace. Key: netns cookie. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1000);
	__type(key, __u64);
	__type(value, struct workload_name);
} workload_names SEC(".maps");

/* Writers: entry programs (stamp), the generation that runs the socket (rest). A miss: no client of ours. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct socket);
} sockets SEC(".maps");

/* Writers: entry programs whose slot was empty. Index: enum hook. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, HOOKS);
	__type(key, __u32);
	__type(value, __u64);
} misses SEC(".maps");

struct accelerated_key {
	struct address local, remote;
	__u64 netns; /* cookie */
	__be16 local_port, remote_port;
	__u32 pad;
};

/* Writer: nothing yet but tests; sockets in it run the sk_msg entry. It never moves: they keep that program for life. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 64);
	__type(key, struct accelerated_key);
	__type(value, __u64);
} accelerated SEC(".maps");

/*
 * One prog array a hook, because the kernel binds an array to one program and attach type. A generation owns
 * the slots word_base(number) to + 15; the first is its main program. Writer: the owner of the pinned state,
 * before a word or a link makes the slot reachable. An empty slot is damage.
 */
#define CALLS(hook)                                                                                                    \
	struct {                                                                                                       \
		__uint(type, BPF_MAP_TYPE_PROG_ARRAY);                                                                 \
		__uint(max_entries, WORD_LIVE *WORD_SLOTS);                                                            \
		__type(key, __u32);                                                                                    \
		__type(value, __u32);                                                                                  \
	} calls_##hook SEC(".maps")

CALLS(connect4);
CALLS(connect6);
CALLS(sendmsg4);
CALLS(sendmsg6);
CALLS(recvmsg4);
CALLS(recvmsg6);
CALLS(peername4);
CALLS(peername6);
CALLS(sock_ops);
CALLS(sk_lookup);
CALLS(tcx);
CALLS(sk_msg);

/* Of a generation; one that did not change is the same map in the next. */

/* Writer: engine. Readers: connect, sendmsg. Value: index into services. A miss: not a port of a service. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 40000);
	__type(key, struct service_key);
	__type(value, __u32);
} service_ids SEC(".maps");

/* Writer: engine; ranges by the program publish. Index 0 is no service. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 20001);
	__type(key, __u32);
	__type(value, struct service);
} services SEC(".maps");

/* Writer: engine, by the program publish where it is reachable. Value: index into endpoints. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 400001);
	__type(key, __u32);
	__type(value, __u32);
} slots SEC(".maps");

/* Writer: engine; state by the program publish. Index 0 is no endpoint. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 100001);
	__type(key, __u32);
	__type(value, struct endpoint);
} endpoints SEC(".maps");

/*
 * Written by programs, and what they hold is to outlive a change of its layout: these are reached only by functions of
 * upgrade/migrate/state.h, whose bodies are others while entries move.
 */
#include "affinity.h"
#include "peer.h"

#ifndef COUNTERS /* else of a release that upgrades are tested with, one map for all CPUs */
#define COUNTERS      counters
#define COUNTERS_KIND BPF_MAP_TYPE_PERCPU_ARRAY
#else
#define COUNTERS_KIND BPF_MAP_TYPE_ARRAY
#define COUNTERS_SHARED
#endif

/* Writers: every program of the generation, which has its own: a canary's health is read from it. Index: enum count. */
struct {
	__uint(type, COUNTERS_KIND);
	__uint(max_entries, COUNTS);
	__type(key, __u32);
	__type(value, __u64);
} COUNTERS SEC(".maps");

static __always_inline void count_more(enum count what, __u64 more)
{
	__u32 index = what;
	__u64 *counter = bpf_map_lookup_elem(&COUNTERS, &index);

	if (!counter)
		return;
#ifdef COUNTERS_SHARED
	__sync_fetch_and_add(counter, more);
#else
	*counter += more; /* per CPU, and no program of ours interrupts another on it */
#endif
}

static __always_inline void count(enum count what)
{
	count_more(what, 1);
}
