# `make help` lists the targets. A machine needs python3 (3.11 or newer, with venv), make and a C compiler.
SHELL := /bin/sh
.DEFAULT_GOAL := help

ifndef PYTHON
PYTHON := $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && exit; done; echo python3)
endif

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input install --quiet
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-header --custom-compile-command 'make lock' $(if $(UPGRADE),--upgrade)

# A stamp is named after what it was made from: another lock, another project file or another place asks for a new one.
stamp = $(VENV)/.$(1)-$(shell { cat $(2) pyproject.toml; pwd; } | cksum | tr ' ' '-')
RUNTIME := $(call stamp,runtime,requirements/build.txt requirements/runtime.txt)
DEV := $(call stamp,dev,requirements/dev.txt)
NODE := tests/node/node_modules/.package-lock.json

.PHONY: help run test check lock docs clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 16

run: $(RUNTIME) ## install what is missing, migrate the database, start the gateway (ARGS="--port 9000")
	@exec $(BIN)/lukhas serve $(ARGS)

test: $(DEV) $(NODE) ## run every test that this machine can run (ARGS="tests/unit -k name" for some)
	@$(BIN)/python tools/suite.py $(ARGS)

check: $(DEV) ## lint, formatting, types, architecture and documentation
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m pyright
	$(BIN)/python -m pytest -q tests/architecture tests/docs

docs: $(DEV) ## renew the generated reference pages
	@$(BIN)/python tools/reference.py

lock: $(DEV) ## renew the lock files after a change in pyproject.toml (UPGRADE=1 takes newer versions)
	$(COMPILE) --group build -o requirements/build.txt
	$(COMPILE) pyproject.toml --all-extras --group dev -c requirements/build.txt -o requirements/dev.txt
	$(COMPILE) pyproject.toml --extra demo --extra plot --extra verify -c requirements/dev.txt -o requirements/runtime.txt

clean: ## remove the environment and everything that can be made again; data stays
	rm -rf $(VENV) tests/node/node_modules .cache .hypothesis .pytest_cache .ruff_cache .coverage .coverage.* dist
	find lukhas tests tools -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "LUKHAS needs Python 3.11 or newer, and $(PYTHON) is '$$($(PYTHON) -V 2>&1)'." >&2; \
		echo "Name a newer one: make run PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) cannot make virtual environments: its venv or ensurepip module is missing." >&2; \
		echo "On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "Making $(VENV) with $$($(PYTHON) -V 2>&1)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(RUNTIME): $(BIN)/python
	@echo "Installing the locked dependencies"
	@$(PIP) --require-hashes --no-deps -r requirements/build.txt -r requirements/runtime.txt
	@$(PIP) --no-deps --no-build-isolation --editable .
	@rm -f $(VENV)/.runtime-* && touch $@

$(DEV): $(BIN)/python
	@echo "Installing the locked dependencies, with those for development"
	@$(PIP) --require-hashes --no-deps -r requirements/dev.txt
	@$(PIP) --no-deps --no-build-isolation --editable .
	@rm -f $(VENV)/.runtime-* $(VENV)/.dev-* && touch $(RUNTIME) $@

# Without npm, or without a registry, the tests that need the package are skipped and say so.
$(NODE): tests/node/package.json tests/node/package-lock.json
	@if command -v npm >/dev/null; then \
		echo "Installing the locked Node client for its tests"; \
		npm ci --prefix tests/node --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null \
			&& touch $@ || echo "npm ci failed; the Node client's tests cannot run." >&2; \
	fi
