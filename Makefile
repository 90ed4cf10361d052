# make quickstart: train and evaluate the embedded default.   make test: everything that CI checks.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# A file's tests share what is slow to make, so that a process takes whole files, in the order in which pytest finds them:
# the slow ones (distributed, faults, integration) first, so that the short ones fill what is left at the end. A third
# process on two cores makes each test wait longer than all of them gain.
PROCESSES ?= 2
# The build of FAISS, of which an environment can have only one: cpu, or gpu where there are NVIDIA GPUs.
FAISS ?= cpu
PYTEST = $(BIN)/pytest --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder
# With the packages' bytecode, which pip makes: where PYTHONDONTWRITEBYTECODE is set, nothing else would, and each of the
# hundreds of processes of the tests would compile what it imports.
PIP = $(BIN)/python -m pip install --quiet

.PHONY: quickstart test test-fast docs gpu-campaign lint format clean help

help:
	@echo "make quickstart  install into $(VENV), then train and evaluate the embedded default"
	@echo "make test        lint, types, layers and all tests, as CI runs them: half an hour on two cores"
	@echo "make test-fast   lint, types, layers, and the tests without Ray and ranks: some minutes"
	@echo "make docs        the documentation as a site, in the folder site; links and anchors are checked"
	@echo "make gpu-campaign  measure all that matters on this machine's GPU, in twelve minutes (docs/performance.md)"
	@echo "make format      let ruff format and mend the code"
	@echo "make clean       remove $(VENV) and caches (runs stay)"

quickstart: $(VENV)/installed
	$(BIN)/hbtrain train quickstart

test: lint
	$(PYTEST) --durations 40

test-fast: lint
	$(PYTEST) tests/unit tests/property

docs: $(VENV)/installed-dev
	$(BIN)/mkdocs build --strict

# The device's name is that of the file of results: tests/bench/results/nvidia-h200.jsonl.
gpu-campaign: $(VENV)/installed-dev
	$(BIN)/python -m tests.bench.bench_gpu --output tests/bench/results

lint: $(VENV)/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "hbtrain needs Python 3.11 or newer; name one: make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip

$(VENV)/installed: $(BIN)/python pyproject.toml
	@echo "installing hbtrain and its packages into $(VENV): some minutes, once"
	$(PIP) --editable '.[$(FAISS)]'
	@touch $@

$(VENV)/installed-dev: $(BIN)/python pyproject.toml
	@echo "installing hbtrain, its packages and those for its tests into $(VENV): some minutes, once"
	$(PIP) --editable '.[dev,docs,$(FAISS)]'
	@touch $(VENV)/installed $@

clean:
	rm -rf $(VENV) site .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
