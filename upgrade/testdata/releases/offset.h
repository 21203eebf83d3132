// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#pragma once

/* Broken: packets are read 4 bytes behind where their source is. No layout differs, only what the program answers. */
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>
#define bpf_skb_load_bytes(skb, at, to, size) bpf_skb_load_bytes(skb, (at) + 4, to, size)
