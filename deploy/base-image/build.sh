#!/usr/bin/env bash
# build.sh NAME PACKAGE...: an image of a minimal Debian with these packages, of the release and from the mirror that this machine's
# apt uses; a base for the others where none can be pulled. As root; needs debootstrap and a Docker engine.
set -euo pipefail
name=${1:?usage: build.sh NAME PACKAGE...}
shift

# shellcheck source=/dev/null
suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
# shellcheck disable=SC2016 # apt fills these in
mirror=$(apt-get indextargets --format '$(REPO_URI)|$(RELEASE)|$(COMPONENT)' 'Created-By: Packages' |
	awk -F'|' -v suite="$suite" '$2 == suite && $3 == "main" && !found { found = $1 } END { print found }')
[ -n "$mirror" ] || { echo "build.sh: apt has no source for $suite main" >&2; exit 1; }
proxy=$(apt-config shell proxy Acquire::http::Proxy)
[ -z "$proxy" ] || { eval "$proxy"; export http_proxy=$proxy; }

work=$(mktemp -d)
trap 'rm -rf --one-file-system "$work"' EXIT
root=$work/root
packages=$(IFS=,; echo "$*")
for attempt in 1 2; do # a download may fail
	rm -rf --one-file-system "$root"
	debootstrap --variant=minbase --include="$packages" "$suite" "$root" "$mirror" >"$work/log" 2>&1 && break
	[ "$attempt" = 1 ] || { tail -n 20 "$work/log" "$root/debootstrap/debootstrap.log" >&2; exit 1; }
done
tar -C "$root" --exclude=./dev --exclude=./var/cache/apt --exclude=./var/lib/apt/lists -c . | docker import - "$name" >/dev/null
