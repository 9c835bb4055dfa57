# JiVS: every command of the project. `make` lists them.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp

.DEFAULT_GOAL := help
.PHONY: help setup demo servers test check format docs bench drill soak clean

help: ## List the commands
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml hatch_build.py $(wildcard src/jivs/wire/c/*)
	@tools/make-venv.sh $(PYTHON) $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[all]' $$($(BIN)/python tools/dev-requirements.py)
	@tools/make-venv.sh $(PYTHON) $(VENV)/generator
	@$(VENV)/generator/bin/python -m pip install --quiet --disable-pip-version-check \
	  $$($(BIN)/python tools/dev-requirements.py generator)
	@touch $@

setup: $(STAMP) ## Make .venv with everything to develop in, and .venv/bin/jivs

demo: $(STAMP) ## Run the main job on sample data; needs no service
	$(BIN)/jivs demo --to demo

servers: ## Install the database servers and tools that the tests start, where they are missing
	@tools/install-servers.sh

test: servers setup ## Run every test, against real servers that it starts itself
	$(BIN)/python -m pytest -m 'not soak' -n 2 --dist loadfile

check: setup ## Static checks: style, types, rings, generated pages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --verbose > /dev/null || $(BIN)/lint-imports --no-cache
	$(BIN)/python tools/generate-docs.py --check

format: setup ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup ## Write the generated pages again
	$(BIN)/python tools/generate-docs.py

bench: servers setup ## Measure, side by side with rivals; writes docs/benchmarks.md
	$(BIN)/python -m benchmarks

drill: setup ## Back up, destroy, restore and verify, on copies; prints the time of each step
	$(BIN)/python tools/drill.py

soak: setup ## The long tests: hundreds of kill points, 100 M rows, long random runs, fuzzing
	@tools/install-servers.sh soak
	$(BIN)/python -m pytest -m soak

clean: ## Remove what the commands made
	rm -rf $(VENV) demo bench-data .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache src/jivs/wire/_native.so
