# Needs Python 3.11 or later, and for the tests with a broker Java 17 and Maven. `make PYTHON=/path/to/python3.12 ...` picks another Python.

PYTHON ?= python3
BIN := .venv/bin
# Else each process would compile torch and the rest anew: 7 s of work instead of 2.
unexport PYTHONDONTWRITEBYTECODE
READY := .venv/.ready
COMPILE = $(BIN)/uv pip compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate $(UPGRADE)

.DEFAULT_GOAL := help
.PHONY: help env test test-docker unit programs proofs chaos lint format lock golden topics docs demo clean

help:  ## say what there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

env: $(READY)  ## the environment, .venv, from the locks

$(READY): pyproject.toml locks/bootstrap.txt locks/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "olearning needs Python 3.11 or later, and '$(PYTHON)' is not that: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r locks/bootstrap.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r locks/dev.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

# Side by side on all cores; tests with a broker and real processes have them to themselves.
SPREAD := -n auto --dist loadgroup

test: lint  ## lint, then every test; starts a broker of its own
	$(BIN)/python -m pytest $(SPREAD) -m "not kafka and not stack and not proof"
	@$(MAKE) --no-print-directory -j2 proofs-aside kafka

# Tests with a broker wait much, and have deadlines: explorations, which have none, take what they leave of the cores, and no more.
ASIDE := $(if $(shell command -v chrt),chrt --idle 0,nice -n 19)
PROOFS := $(SPREAD) -m proof --timeout 3600
.PHONY: proofs-aside kafka
proofs-aside: $(READY)
	@mkdir -p build
	@$(ASIDE) $(BIN)/python -m pytest $(PROOFS) -p no:cacheprovider >build/proofs.log 2>&1; code=$$?; cat build/proofs.log; exit $$code

kafka: $(READY)  ## the tests with a broker
	$(BIN)/python -m pytest -m kafka

# What depends on the broker. A whole plane on one in a container is `test-stack`'s.
DOCKER_TESTS := tests/streams/test_contract.py tests/streams/test_docker_broker.py

test-docker: $(READY)  ## the contract with the broker, on one in Docker
	OLEARNING_TEST_BROKER=docker $(BIN)/python -m pytest -m kafka $(DOCKER_TESTS)

test-stack: plane-image  ## docker-compose.yml: the stack is run, with a Kafka image that is there (KAFKA_IMAGE)
	$(BIN)/python -m pytest -m stack tests/deploy

BASE ?= python:3.12-slim-bookworm
.PHONY: plane-image
plane-image: $(READY)  ## the plane's image, on the image BASE; what is installed in it is fetched outside of it
	deploy/wheels.sh plane $$(docker run --rm --entrypoint python3 $(BASE) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
	docker build -q -f deploy/Dockerfile --build-arg BASE=$(BASE) --build-arg PIP_NO_INDEX=1 -t olearning/plane .

unit: $(READY)  ## the tests of a part each: no broker, no whole program, no exploration; under two minutes on two cores
	$(BIN)/python -m pytest $(SPREAD) -m "not kafka and not stack and not proof and not program"

programs: $(READY)  ## whole programs and experiments, the live page in a browser, the documents' site
	$(BIN)/python -m pytest $(SPREAD) -m "program and not kafka and not stack"

proofs: $(READY)  ## explorations, schedules, crash points, the state machine
	$(BIN)/python -m pytest $(PROOFS)

chaos: $(READY)  ## faults on three real brokers while models are trained; CHAOS="--faults 100 --seed 7 -v"
	$(BIN)/python -m tests.chaos.faults $(CHAOS)

lint: $(READY)  ## style, types, the import rule
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)  ## put the style right
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

lock: $(READY)  ## lock what pyproject.toml asks for; UPGRADE=--upgrade takes newer versions
	$(COMPILE) pyproject.toml -o locks/plane.txt
	$(COMPILE) pyproject.toml --extra train --extra gateway --extra monitor --extra trace --extra dev -o locks/dev.txt
	$(COMPILE) pyproject.toml --extra monitor --extra gateway --extra trace -c locks/dev.txt -o locks/monitor.txt
	$(COMPILE) pyproject.toml --extra train --extra trace -c locks/dev.txt -o locks/train.txt
	echo uv | $(COMPILE) - -o locks/bootstrap.txt
	echo 'flwr==1.41.*' | $(COMPILE) - -o locks/flower.txt

golden: $(READY)  ## accept new golden bytes; prints each change
	$(BIN)/python -m tests.schemas.golden --write

topics: $(READY)  ## make docs/topics.md and docs/asyncapi.json anew, from the topic table
	$(BIN)/python -m olearning topics --markdown >docs/topics.md
	$(BIN)/python -m olearning topics --asyncapi >docs/asyncapi.json

docs: $(READY)  ## the documents as a site: build/docs/index.html
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -b html docs build/docs

demo: $(READY)  ## the demo
	$(BIN)/olearning demo

clean:  ## remove what was made here, .venv too
	rm -rf .venv .venv-flower build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
