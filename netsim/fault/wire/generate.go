// SPDX-License-Identifier: Apache-2.0

package wire

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -no-global-types -target bpfel -go-package wire -type wire_config -type wire_drop -type wire_count wire wire.c -- -O2 -g -mcpu=v3 -Wall -Wextra -Werror
