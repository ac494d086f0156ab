#!/usr/bin/env bash
# build.sh NAME [BASE]: an image of Apache Kafka for where none can be pulled, on BASE, an image with java (made, if none is named).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
name=${1:?usage: build.sh NAME [BASE]}
base=${2:-}

jars=$(.venv/bin/python -c 'from streams.jars import jars; print(jars())')
if [ -z "$base" ]; then
	base=olearning/debian-java
	deploy/base-image/build.sh "$base" default-jre-headless
fi
work=$(mktemp -d)
trap 'rm -rf --one-file-system "$work"' EXIT
cp -r "$jars" "$work/libs"
cp deploy/kafka-image/run "$work/run"
docker build -q -f - --build-arg "BASE=$base" -t "$name" "$work" >/dev/null <deploy/kafka-image/Dockerfile
