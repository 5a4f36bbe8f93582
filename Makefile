# `make help` lists what there is. Set-up runs by itself, once, into .venv; nothing outside this directory changes.
DEVICE ?= cpu
PYTHON ?= $(shell for python in python3.11 python3 python3.12 python3.13; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
READY := $(VENV)/ready-$(DEVICE)
# Tests run side by side, each file in one process. Many wait for programs that they start: with two processes, two
# cores stood idle for a fifth of the time.
WORKERS ?= 3
# These hold a server to times or to a load, and run alone, after the others.
ALONE := $(addprefix tests/faults/test_,overload.py half_open.py connections.py degradation.py frozen_replica.py soak.py)
SINCE ?= HEAD
BENCH ?=
PACKAGES := contract features models serving pipeline moerank
TORCH := $(shell grep '^torch==' requirements/$(DEVICE).txt)
# Asked only where pip's own indexes have no such build.
TORCH_INDEX_cpu := https://download.pytorch.org/whl/cpu
TORCH_INDEX_gpu := https://download.pytorch.org/whl/cu130
# Prefect's client and server report to nobody and write below the user's own home.
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export DO_NOT_TRACK := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test quick bench pairs long faults check types lint format proto docs site pictures clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1: /p' Makefile | while IFS=: read -r name text; do printf '  make %-8s%s\n' "$$name" "$$text"; done

setup: $(READY) ## install everything into .venv (DEVICE=gpu for an NVIDIA machine)

demo: $(READY) ## the main job on real data, from download to an answered request
	$(BIN)/moerank demo

test: $(READY) ## the whole test suite, the examples in docstrings, and the coverage of both
	rm -f .coverage .coverage.*
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -p tests.covered_lines --numprocesses $(WORKERS) --dist loadfile \
		--no-loadscope-reorder $(addprefix --ignore ,$(ALONE))
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -p tests.covered_lines --doctest-modules $(PACKAGES) \
		--ignore serving/stubs --ignore-glob '*/__main__.py'
	$(BIN)/python -m pytest $(ALONE)
	$(BIN)/python -m tests.coverage_floor

quick: $(READY) ## the tests of what changed since the last commit (SINCE=main: since then), in under a minute
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -p tests.quick --changed-since $(SINCE) -q --exitfirst

bench: $(READY) ## all benchmarks one after the other, and which bounds fall short (hours; on a quiet machine)
	$(BIN)/python -m benchmarks $(BENCH)

pairs: $(READY) ## every pair of gate and architecture, and every part of a model: train, judge, export
	$(BIN)/python -m pytest -m '' tests/pipeline/test_pairs.py
	$(BIN)/python -m pytest -m pairs tests/models

long: $(READY) ## tests of the export that take minutes and gigabytes: large tables, every gate in a packed graph
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m long --timeout 1800 tests/models tests/pipeline tests/deploy

faults: $(READY) ## the fault tests in their long forms: overload, soak, swaps, damage, malformed requests
	FAULTS_LONG=1 $(BIN)/python -m pytest tests/faults tests/serving/graph/test_pushed_features.py --timeout 1800

check: $(READY) ## format, lint, types, layers, dependencies, protos, spelling, the site's links
	@$(MAKE) --no-print-directory --jobs 2 --output-sync types lint

types: $(READY)
	$(BIN)/mypy

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/deptry .
	$(BIN)/buf lint proto
	$(BIN)/codespell
	$(BIN)/python docs/build_site.py

format: $(READY) ## rewrite what the formatter and the linter can repair
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

proto: $(READY) ## regenerate the committed gRPC stubs
	$(BIN)/python -m serving.generate

site: $(READY) ## the documentation as a site, in build/site, with every link followed
	$(BIN)/python docs/build_site.py

docs: $(READY) ## rewrite docs/configuration.md from the settings
	$(BIN)/python -m pipeline.project.reference

pictures: $(READY) ## take the pictures of docs/evaluation.md again, from the newest run below runs/ (needs chromium)
	$(BIN)/python docs/picture_pages.py

clean: ## remove .venv and caches; runs and data stay
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .coverage* .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): requirements/common.txt requirements/$(DEVICE).txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "moerank needs Python 3.11, 3.12 or 3.13 as python3.11 or python3 (found:" \
		"$$(python3 --version 2>&1)); install one, or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) lacks the venv module;" \
		"on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@for other in $(VENV)/ready-*; do case "$$other" in "$(READY)" | "$(VENV)/ready-*") ;; *) echo \
		"$(VENV) was made for another device ($$other): run make clean first" >&2; exit 1;; esac; done
	@echo "Setting up $(VENV): the packages of requirements/$(DEVICE).txt. This takes some minutes, once."
	@$(PIP) --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@echo "1 of 3: $(TORCH)"
	@$(PIP) install --quiet --no-compile --no-deps '$(TORCH)' 2>/dev/null || { echo "not on this machine's package index;" \
		"asking $(TORCH_INDEX_$(DEVICE))"; \
		$(PIP) install --quiet --no-compile --no-deps --index-url $(TORCH_INDEX_$(DEVICE)) '$(TORCH)'; }
	@echo "2 of 3: all other packages"
	@$(PIP) install --quiet --no-compile --no-deps --use-pep517 -r requirements/$(DEVICE).txt
	@echo "3 of 3: moerank itself"
	@$(PIP) install --quiet --no-compile --no-deps --no-build-isolation -e .
	@# pip would compile 19,600 files one after the other, for over a minute. Some are for other Pythons, and fail.
	@$(BIN)/python -W ignore -m compileall -qq -j 0 $(VENV)/lib || true
	@touch $@
