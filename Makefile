# Everything a contributor or a visitor needs; `make` alone explains itself.
# PYTHON is the interpreter of the environment; KEEP=0 ends the demo after its summary; PYTEST_ARGS go to pytest,
# which runs in WORKERS processes (0: in one, as a debugger wants it).
PYTHON ?= python3
DEMO ?= quick
KEEP ?= 1
PYTEST_ARGS ?=
WORKERS ?= 2

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
UV_VERSION := $(shell sed -n 's/^uv==//p' constraints.txt)

export GX_ANALYTICS_ENABLED := false
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := true

.PHONY: help install demo test check format bench soak clean

help: ## Show the targets
	@sed -n 's/^\([a-z]*\):.*## /\1	/p' $(MAKEFILE_LIST) | while IFS=$$'\t' read -r target text; do printf '  make %-9s %s\n' "$$target" "$$text"; done

install: $(STAMP) ## Create .venv and install the pinned set (again only when pyproject.toml or constraints.txt change)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "uv==$(UV_VERSION)"
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[dev]'
	touch $@

demo: install ## Run the whole loop on the New York flights of 2013 (KEEP=0 exits after the summary)
	@test '$(DEMO)' = quick || { echo "DEMO=$(DEMO) does not exist: use DEMO=quick" >&2; exit 2; }
	exec $(BIN)/xops demo $(if $(filter 0,$(KEEP)),--no-keep,--keep)

test: install ## Run all tests but the soak tests (PYTEST_ARGS="-k commit" for some)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

check: install ## Lint, format check, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install ## Format the code and apply the linter's safe fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install ## Run every benchmark (python -m benchmarks NAME --json for one)
	$(BIN)/python -m benchmarks

soak: install ## Run the long race and kill tests
	$(BIN)/python -m pytest -m soak $(PYTEST_ARGS)

clean: ## Remove the environment, the demo's state and all caches
	rm -rf $(VENV) .xops dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .benchmarks
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
