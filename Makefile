# JiVS: every command of the project. `make` lists them.
SHELL := /bin/bash
unexport PYTHONDONTWRITEBYTECODE  # or each of the many processes of a test run would compile the sources anew
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
DEV := $(VENV)/.dev

.DEFAULT_GOAL := help
.PHONY: help setup demo servers test check format docs bench drill soak clean

help: ## List the commands
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

# Bytecode is made by all processors at once, after pip: its own way takes one. Of packages of which little is used, by whoever uses it.
COMPILE = $(BIN)/python -m compileall -qq -j 0 -x '/(moto|mypy|mypyc|pip|playwright|setuptools|virtualenv)/' $(VENV)/lib || true

$(STAMP): pyproject.toml hatch_build.py $(wildcard src/jivs/wire/c/*)
	@tools/make-venv.sh $(PYTHON) $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --editable '.[all]'
	@$(COMPILE)
	@touch $@

$(DEV): $(STAMP) tools/dev-requirements.py
	@tools/make-venv.sh $(PYTHON) $(VENV)/generator
	@$(VENV)/generator/bin/python -m pip install --quiet --disable-pip-version-check \
	  $$($(BIN)/python tools/dev-requirements.py generator) & generator=$$!; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile \
	  $$($(BIN)/python tools/dev-requirements.py); failed=$$?; wait $$generator && exit $$failed
	@$(COMPILE)
	@touch $@

setup: $(DEV) ## Make .venv with everything to develop in, and .venv/bin/jivs

demo: $(STAMP) ## Run the main job on sample data; needs no service
	$(BIN)/jivs demo --to demo

servers: ## Install the database servers and tools that the tests start, where they are missing
	@tools/install-servers.sh

# In the order of the alphabet: the short ones, unit, come last, and no process is left alone with a long one.
test: servers setup ## Run every test, against real servers that it starts itself
	$(BIN)/python -m pytest -m 'not soak' -n 3 --dist loadfile --no-loadscope-reorder

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
	TEST_THOROUGH=1 $(BIN)/python -m pytest tests/unit
	$(BIN)/python -m pytest -m soak

clean: ## Remove what the commands made
	rm -rf $(VENV) demo bench-data .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache src/jivs/wire/_native.so
