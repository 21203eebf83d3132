//go:build ignore
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/* One object: every program of every hook, so that there is one set of maps, one layout and one configuration. */
#include "entry.c"
#include "connect.c"
#include "sendmsg.c"
#include "peername.c"
#include "sockops.c"
#include "inbound.c"
#include "source.c"
#include "iterate.c"
#include "publish.c"
#ifdef MORE /* of a release that upgrades are tested with */
#include MORE
#endif

/* Names what must reach BTF, and so Go, though no map or program has it in its type. */
const struct exported {
	struct flow flow;
	struct flow_record flow_record;
	struct publication publication;
	struct publish_request publish_request;
	enum publish_what publish_what;
	enum publish_error publish_error;
	enum service_level service_level;
	enum service_flag service_flag;
	enum workload_by workload_by;
	enum workload_flag workload_flag;
	enum flow_flag flow_flag;
	enum flow_layout flow_layout;
	enum peer_direction peer_direction;
	enum count count;
	enum hook hook;
	enum control control;
} *exported __attribute__((unused));

char _license[] SEC("license") = "Dual BSD/GPL";
