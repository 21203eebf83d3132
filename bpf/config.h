// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#pragma once

#include <linux/types.h>

/* Controls make one promise false on purpose, so that the test of that promise can be seen to fail. */
enum control {
	CONTROL_IGNORE_STAMP = 1 << 0, /* entry programs run the generation that serves, whatever the stamp says */
	CONTROL_MISS_PASSES = 1 << 1,  /* a port that a service lacks, and a service without endpoints, pass */
	CONTROL_TRUST_SLOT = 1 << 2,   /* the record of a service is not compared with what was dialled */
	CONTROL_REFUSE_SOME = 1 << 3,  /* every third that dials a service is refused: only traffic can tell */
};

/* Set when the object is loaded, constant from then on: the verifier removes the branches that are off. */
struct configuration {
	__u16 generation;
	__u16 pad;
	__u32 controls; /* enum control; 0 but in a control build */
};

volatile const struct configuration config;
