// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/* The program that this build has twice gets its name back. */
#undef mesh_sock_ops
#undef mesh_connect4
#include BROKEN
