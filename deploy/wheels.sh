#!/usr/bin/env bash
# wheels.sh [LOCK] [PYTHON]: what deploy/Dockerfile installs, as wheels in wheels/, for builds that reach no index (PIP_NO_INDEX=1).
# PYTHON is the version in the base image, by default .venv's.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
lock=${1:-plane}
python=${2:-$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')}

build=$(mktemp)
trap 'rm -f "$build"' EXIT
awk -v names="^(hatchling|packaging|pathspec|pluggy|trove-classifiers)==" '/^[a-z]/ { on = $0 ~ names } on' locks/dev.txt >"$build"
mkdir -p wheels
for file in "locks/$lock.txt" "$build"; do
	.venv/bin/python -m pip download -q --disable-pip-version-check --no-deps --require-hashes --only-binary :all: \
		--python-version "$python" -r "$file" -d wheels
done
