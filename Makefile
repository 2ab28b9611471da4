# calo-train: `make` lists what can be made. Needs make and Python 3.11 or newer.

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
KILLS ?= 500
INPUTS ?= 10000
DEMO_RUN := runs/ild_sample/l2lflows/quickstart
BENCHMARKS := $(shell grep -l "^def main" benchmarks/*.py)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test check bench browser-test kill-test fuzz-test slurm-test wheel clean

help: ## list the targets
	@echo "make TARGET, with one of:"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1	\2/p' $(MAKEFILE_LIST) | expand -t 17
	@echo "PYTHON=python3.12 chooses the interpreter, TORCH_INDEX=URL where torch comes from"

setup: $(READY) ## make .venv with the pinned dependencies and this checkout

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: calo-train needs Python 3.11 or newer" >&2; \
	  echo "  where: PYTHON=$(PYTHON)" >&2; \
	  echo "  do:    make $(or $(MAKECMDGOALS),setup) PYTHON=python3.12, with one that is installed" >&2; \
	  exit 2; }
	@if [ -z "$(TORCH_INDEX)" ] && [ ! -e /proc/driver/nvidia/version ] \
	  && ! command -v nvidia-smi >/dev/null; then \
	  echo "note: no NVIDIA GPU here, and torch may come with several GB of CUDA libraries;"; \
	  echo "      stop and see 'Installing' in README.md to take the CPU build instead"; fi
	@echo "making $(VENV): downloads torch and about 120 packages, some minutes"
	$(PYTHON) -m venv $(VENV)
	$(PIP) --no-deps $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	$(PIP) -e ".[dev,tune]"
	@touch $@

demo: $(READY) ## train, sample and evaluate on the embedded showers; prints a report's path
	$(BIN)/calo-train experiment=quickstart
	$(BIN)/calo-sample $(DEMO_RUN) -n 1000 --energy 50GeV --force
	$(BIN)/calo-eval $(DEMO_RUN)

# One thread for each of the two test processes, else they fight for the cores.
test: $(READY) ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile

check: $(READY) ## run formatting, lint, types and import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY) ## measure speed beside peers; results go to docs/performance.md
	$(PIP) -e ".[dev,bench]" || echo "note: no peer could be installed; benchmarks go on without it"
	@for script in $(BENCHMARKS); do echo "== $$script"; $(BIN)/python $$script || exit 1; done
	$(BIN)/python scripts/performance_page.py

browser-test: $(READY) ## open the report in Chromium (needs chromium and chromedriver)
	$(PIP) -e ".[dev,browser]"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q browser_tests

kill-test: $(READY) ## kill -9 commands 500 times (KILLS=...); the result goes to docs/results
	OMP_NUM_THREADS=1 $(BIN)/python tests/reliability/kill_suite.py --kills $(KILLS) \
	  --out docs/results/kills.json

fuzz-test: $(READY) ## read 10,000 mutated files (INPUTS=...); the result goes to docs/results
	OMP_NUM_THREADS=1 $(BIN)/python tests/reliability/fuzz_suite.py --inputs $(INPUTS) \
	  --out docs/results/fuzz.json

slurm-test: $(READY) ## run jobs on a SLURM of this machine (root; needs slurm-wlm and munge)
	$(PIP) -e ".[dev,slurm]"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q --timeout 1800 slurm_tests

wheel: $(READY) ## build dist/*.whl
	$(BIN)/python -m hatchling build -t wheel -d dist

clean: ## remove .venv and what was built; runs/ stays
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
