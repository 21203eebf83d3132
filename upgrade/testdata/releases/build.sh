#!/bin/sh
# Compiles the releases that upgrades are tested with, from the product's own C: sh testdata/releases/build.sh, in upgrade/.
# `go generate` does not run it: what was released does not change with the C. What is different in each is said here and
# in the headers beside this file.
set -eu
cd ../bpf
at=../upgrade/testdata/releases
compile() {
	name=$1
	shift
	clang-19 -target bpf -O2 -g -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter -Wno-unused-function \
		-fno-ident -fdebug-compilation-dir=. ${BPF2GO_CFLAGS:-} "$@" -c mesh.c -o "$at/$name.o"
	llvm-strip-19 -g "$at/$name.o"
}
release() { # name, schema of affinities, schema of peers, more
	name=$1 affinity=$2 peer=$3
	shift 3
	compile "$name" -DAFFINITY_LAYOUT="\"$at/affinity.h\"" -DAFFINITY_SCHEMA="$affinity" \
		-DPEER_LAYOUT="\"$at/peer.h\"" -DPEER_SCHEMA="$peer" "$@"
}
release 1 1 1
release 2 2 1
release 3 3 2
release 4 4 3 -DMORE="\"$at/release.h\""
release 5 5 3 -DMORE="\"$at/release.h\"" -DCOUNTERS=counters_v2
release 6 6 3
# Broken ones.
compile offset -include "$at/offset.h"
compile swapped -Dmesh_connect4=lost_connect4 -DMORE="\"$at/broken.h\"" -DBROKEN="\"swapped.h\""
compile reordered -DAFFINITY_LAYOUT="\"$at/reordered.h\""
compile rejected -Dmesh_sock_ops=lost_sock_ops -DMORE="\"$at/broken.h\"" -DBROKEN="\"rejected.h\""
compile unhealthy -Dmesh_connect4=lost_connect4 -DMORE="\"$at/broken.h\"" -DBROKEN="\"unhealthy.h\""
