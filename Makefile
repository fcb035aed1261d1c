# Two commands: `make tutorial` (set up once, run the lessons, open the report) and `make test` (everything).
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help tutorial test setup up down notebook peers faults phoenix reference lint pins clean

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do $$p -c '' 2>/dev/null && echo $$p && break; done)
TORCH := torch==2.13.0+cpu
TORCH_PAGE := https://download.pytorch.org/whl/cpu/torch/
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip --disable-pip-version-check install --no-compile
READY := .venv/.ready

help: ## show this
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

tutorial: $(READY) ## run the lessons, or one of them: make tutorial K=lesson3
	$(BIN)/pytest tutorial_tests -k "$(or $(K),lesson)" $(ARGS)

test: $(READY) ## run everything: unit tests, side by side, and then lessons, faults and the gate
	$(BIN)/pytest lmcache_tutorial -n 4 --dist loadgroup -q
	$(BIN)/pytest tutorial_tests $(ARGS)

setup: $(READY) ## make .venv, install, prepare the model
	@echo "set up: . .venv/bin/activate"

# Every step may be cut off and run again; what is there already is not fetched twice. torch comes from a
# wheel that pip knows, else from PyTorch's page: in a step of its own, since pip asks such a page again for
# every package. Of 31,000 modules a third is ever imported; Python compiles each when it first is, so it
# must be allowed to: some containers forbid it.
unexport PYTHONDONTWRITEBYTECODE
$(READY): requirements-cpu.lock pyproject.toml
	@$(or $(PYTHON),$(error set-up stopped: no Python is installed; install Python 3.11)) lmcache_tutorial/machine/checks.py
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@$(BIN)/python -c 'import importlib.metadata as m, sys; sys.exit(m.version("torch") != "2.13.0+cpu")' 2>/dev/null \
	  || { echo "set-up: torch"; $(INSTALL) -q $(TORCH) 2>/dev/null || $(INSTALL) $(TORCH) --find-links $(TORCH_PAGE); }
	@echo "set-up: packages (about 2 minutes and 4 GB the first time)"
	@$(INSTALL) -qq --no-deps -r requirements-cpu.lock
	@$(INSTALL) -qq --no-deps --no-build-isolation -e .
	@$(BIN)/python -m lmcache_tutorial.machine.top_level
	@$(BIN)/lmcache-tutorial prepare
	@touch $@

up: $(READY) ## keep a stack running, so that the next pytest starts in seconds
	$(BIN)/lmcache-tutorial up

down: $(READY) ## stop the stack that is kept
	$(BIN)/lmcache-tutorial down

notebook: $(READY) ## the lessons as one notebook, run, or some of them: make notebook K="lesson2 lesson4"
	$(BIN)/lmcache-tutorial notebook $(K) $(ARGS)

peers: $(READY) ## measure LMCache and its peers side by side
	$(BIN)/pytest --kv-peers -k peers $(ARGS)

faults: $(READY) ## every fault, the whole matrix
	$(BIN)/pytest --kv-faults -m faults $(ARGS)

phoenix: $(READY) ## a second receiver of traces that others wrote, installed for it
	$(BIN)/pytest lmcache_tutorial -m phoenix $(ARGS)

reference: ## commit this run: make reference NAME=cpu-smollm2-135m copies the last reports and notebook, and README's headlines
	@test -n "$(NAME)" || { echo "make reference needs NAME=…, a folder of reports/reference"; exit 2; }
	mkdir -p reports/reference/$(NAME)
	for file in index.html results.json peers.html peers.json tuning.html tuning.json faults.html faults.json; do \
	  if [ -f reports/$$file ]; then cp reports/$$file reports/reference/$(NAME)/; fi; done
	for file in lmcache_huge_data_tutorial.ipynb lmcache_huge_data_tutorial.html; do \
	  if [ -f $$file ]; then cp $$file reports/reference/$(NAME)/; fi; done
	$(BIN)/lmcache-tutorial headlines reports/reference/*/results.json --into README.md

lint: $(READY) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

pins: $(READY) ## do the pinned packages still take our command lines (also the GPU's, without a GPU)?
	$(BIN)/python .ci/pins.py

clean: ## stop the kept stack; remove the environment, reports and caches
	@if [ -x $(BIN)/lmcache-tutorial ]; then $(BIN)/lmcache-tutorial down; fi
	rm -rf lmcache_huge_data_tutorial.* .venv .benchmarks .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find reports -mindepth 1 -maxdepth 1 ! -name README.md ! -name reference ! -name findings -exec rm -rf {} +
