#!/bin/sh
# Builds agents, commands and CNI plugins of the releases in upgrade/releases.yaml from history. `releases.sh DIR` makes
# DIR/VERSION for each of them and removes what is listed no more, `releases.sh DIR oldest` makes the first one only. What was
# built of a commit is not built again. It fetches the history of a shallow clone. A commit that is in no history is a
# failure, and so is a list of none.
set -eu
mkdir -p "$1"
into=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."
releases=$(sed -nE 's/^(v[0-9.]+): +([0-9a-f]{40})$/\1 \2/p' upgrade/releases.yaml)
test -n "$releases" || { echo "upgrade/releases.yaml lists no release" >&2; exit 1; }
test "${2:-}" = oldest && releases=$(echo "$releases" | head -n 1)
for dir in "$into"/v*; do
	echo "$releases" | grep -q "^$(basename "$dir") " || rm -rf "$dir"
done
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
echo "$releases" | while read -r version commit; do
	test "$(cat "$into/$version/commit" 2>/dev/null)" != "$commit" || continue
	git cat-file -e "$commit^{commit}" 2>/dev/null || git fetch -q --unshallow || git fetch -q origin "$commit" || {
		echo "commit $commit of release $version is not in this clone, and its history cannot be fetched" >&2
		exit 1
	}
	mkdir -p "$tree/$version" "$into/$version"
	git archive -o "$tree/$version.tar" "$commit"
	tar -xf "$tree/$version.tar" -C "$tree/$version"
	(cd "$tree/$version" && go build -trimpath -ldflags "-X main.release=$version" -o "$into/$version/" ./cmd/evenkeel ./cmd/evenkeel-cni)
	echo "$commit" >"$into/$version/commit"
done
