# Everything a fresh machine with Python 3.11+, git and make needs: each target sets up what it uses.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup search results test test-all lint format clean

setup: $(VENV)/.ready

# --prefer-binary keeps pip from building from source what has a wheel; constraints.txt holds the tested versions
$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "bonas needs Python 3.11 or newer: make PYTHON=python3.11")'
	@echo "setting up $(VENV): a few minutes the first time"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --prefer-binary -c constraints.txt -e '.[dev]'
	touch $@

# what only long tests need
$(VENV)/.ready-all: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --prefer-binary -c constraints.txt -e '.[dev,dask,ray]'
	touch $@

search: setup
	$(BIN)/bonas search quickstart

# every table of docs/results.md that searches or predictors make, on tables prepared before; hours, and resumable
results: setup
	$(BIN)/python benchmarks/results.py

# a process per core, four at most: each has a Prefect server of its own; files stay whole, the long ones come first
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

test: setup
	$(PYTEST)

test-all: $(VENV)/.ready-all
	$(PYTEST) -m ''

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info
