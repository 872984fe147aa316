# The commands of people, hooks and CI. GNU make 3.81 (macOS) is enough.

PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3.14 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$python && break; done)
BIN := .venv/bin
STAMP := .venv/.installed
EXTRAS := serve,pipeline,minilm,traces,dev
PROTOC := grpcio-tools==1.85.1
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check

.PHONY: help demo test lint format schema proto constraints bench fuzz results clean
.DEFAULT_GOAL := help

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(STAMP) ## train, compress, serve and ask a small model, from nothing
	$(BIN)/maasflow demo

test: $(STAMP) ## run the tests; ARGS="-k name" chooses
	$(BIN)/python -m pytest $(ARGS)

lint: $(STAMP) ## check style, types and which way imports point
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## mend the style
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

schema: $(STAMP) ## rewrite docs/schema from the code
	$(BIN)/python -m tasks.schema docs/schema

# protoc writes for its own version of protobuf and newer ones, and the tools want one of their own: a fresh environment.
proto: ## rewrite the messages of gRPC from deploy/serving/open_inference.proto
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: install it, or set PYTHON=/path/to/it" >&2; exit 1; }
	fresh=$$(mktemp -d) && trap 'rm -rf "$$fresh"' EXIT && $(PYTHON) -m venv "$$fresh" && \
	"$$fresh/bin/python" $(PIP_INSTALL) $(PROTOC) && \
	"$$fresh/bin/python" -m grpc_tools.protoc -I . --python_out=. --pyi_out=. deploy/serving/open_inference.proto

bench: $(STAMP) ## measure the speed that the README promises, and training beside transformers.Trainer
	$(BIN)/python -m tests.benchmarks.pipeline
	$(BIN)/python -m tests.benchmarks.training

fuzz: $(STAMP) ## ask the server for what no client should send
	$(BIN)/python -m tests.fuzz

results: $(STAMP) ## run every shipped recipe and write docs/RESULTS.md; MAASFLOW_MIRROR stands in for the hub
	$(BIN)/python -m tests.benchmarks.results docs/RESULTS.md

# A version's local part (torch 2.13.0+cpu) is one index's own, so it is left out.
constraints: ## resolve every dependency anew and pin it
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: install it, or set PYTHON=/path/to/it" >&2; exit 1; }
	fresh=$$(mktemp -d) && trap 'rm -rf "$$fresh"' EXIT && $(PYTHON) -m venv "$$fresh" && \
	"$$fresh/bin/python" $(PIP_INSTALL) -e '.[$(EXTRAS)]' && \
	{ echo '# Versions that are tested together. Made by `make constraints`: change pyproject.toml, not this file.'; \
	"$$fresh/bin/python" -m pip --disable-pip-version-check list --format=freeze --exclude-editable --exclude pip --exclude setuptools \
	| sed -E 's/\+[A-Za-z0-9.]+$$//'; } > "$$fresh/constraints.txt" && \
	grep -qx 'torch==[0-9.]*' "$$fresh/constraints.txt" && cp "$$fresh/constraints.txt" constraints.txt

clean: ## remove what these commands made; data, models and runs stay
	rm -rf .venv .fuzz dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: install it, or set PYTHON=/path/to/it" >&2; exit 1; }
	@echo "installing into .venv, which takes a few minutes"
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python $(PIP_INSTALL) -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@
