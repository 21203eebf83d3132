#!/bin/sh
# Compiles the releases that upgrades are tested with, from the product's own C as it was at one commit: what was released
# does not change with the C. `go generate ./upgrade` runs it. What is different in each release is said here and in the
# headers beside this file. It needs the history of the repository, and fetches it.
set -eu
base=61dbed3ccd94ad10fede20cfa34d83cb095d79cf
here=$(pwd)/testdata/releases
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
git -C .. cat-file -e "$base^{commit}" 2>/dev/null || git -C .. fetch -q --unshallow || {
	echo "commit $base is not in this clone, and its history cannot be fetched" >&2
	exit 1
}
git -C .. archive "$base" -o "$tree/base.tar" bpf upgrade/word.h upgrade/migrate
tar -xf "$tree/base.tar" -C "$tree"
mkdir -p "$tree/upgrade/testdata/releases"
cp "$here"/*.h "$tree/upgrade/testdata/releases"
cd "$tree/bpf"
at=../upgrade/testdata/releases
compile() {
	name=$1
	shift
	clang-19 -target bpf -O2 -g -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-parameter -Wno-unused-function \
		-fno-ident -fdebug-compilation-dir=. ${BPF2GO_CFLAGS:-} "$@" -c mesh.c -o "$here/$name.o"
	llvm-strip-19 -g "$here/$name.o"
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
