# Everything but the system packages lives in .venv, made here.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup run test lint services bench bench-rivals bench-report clean

help:           ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## */\t/' | expand -t 16

setup: $(STAMP) ## make .venv with everything that running and testing need

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

run: setup      ## an agent answers a question and calls a tool
	$(BIN)/gossamer run

# Tests wait about as much as they compute: one process more than two cores. Bytecode is kept, whatever the
# environment says, for tests start hundreds of processes.
WORKERS ?= 3

test: lint      ## everything that must hold: lint, types, layers, tests
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

services:       ## install the system packages that tests can use (needs root)
	@bash scripts/services.sh

bench: setup    ## measure; rivals are measured too where `make bench-rivals` made them
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/gossamer bench

bench-report: setup ## docs/benchmarks.md out of benchmarks/results
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m benchmarks.report

include benchmarks/peers/peers.mk

clean:
	rm -rf $(VENV)
