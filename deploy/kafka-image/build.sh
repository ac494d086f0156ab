#!/usr/bin/env bash
# build.sh NAME: a Docker image of Apache Kafka from Debian's and Maven's packages, for where none can be pulled.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
name=${1:?usage: build.sh NAME}

jars=$(.venv/bin/python -c 'from streams.broker import jars; print(jars())')
# The release and the mirror that this machine's apt uses, and its proxy.
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
for attempt in 1 2; do # a download may fail
	rm -rf --one-file-system "$root"
	debootstrap --variant=minbase --include=default-jre-headless "$suite" "$root" "$mirror" >"$work/log" 2>&1 && break
	[ "$attempt" = 1 ] || { tail -n 20 "$work/log" "$root/debootstrap/debootstrap.log" >&2; exit 1; }
done
# Where apache/kafka has the jars, and not as root, as there: what works in this image then works in that one.
mkdir "$root/opt/kafka"
cp -r "$jars" "$root/opt/kafka/libs"
tar -C "$root" --exclude=./dev --exclude=./var/cache/apt --exclude=./var/lib/apt/lists -c . |
	docker import --change 'USER nobody' - "$name" >/dev/null
