// SPDX-License-Identifier: Apache-2.0

// Package reader is a stand-in for a machine full of connecting clients: a program that looks services up with the
// data plane's own code, 10^7 times a second, and proves of each answer that it was whole. Only tests use it.
package reader

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -no-global-types -target bpfel -go-package reader -type reader_result -type reader_limits Reader reader.c -- -O2 -g -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter -Wno-unused-function
