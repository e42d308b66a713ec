# The two commands of the README, and the ones that keep the house in order.
PYTHON ?= python3
VENV ?= .venv
RUNS ?= runs/demo
BIN := $(VENV)/bin
PIP_QUIET := --quiet --disable-pip-version-check
INSTALL := $(BIN)/python -m pip install $(PIP_QUIET) --constraint constraints.txt

.PHONY: demo test lint format clean

demo: $(VENV)/.installed
	@RUNS=$(RUNS) PATH="$(abspath $(BIN)):$$PATH" sh experiments/demo.sh

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v[:2] <= (3, 13) else f"jaxgen needs Python 3.11, 3.12 or 3.13, and $(PYTHON) is {v[0]}.{v[1]}: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) --editable .
	@touch $@

$(VENV)/.installed-test: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) --editable '.[test]'
	@touch $@ $(VENV)/.installed
