# Two commands on a fresh machine: `make demo` and `make test`. Both make their own virtual environment.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: help demo test test-thorough test-slow soak check lint types doctest readme format clean

help:  ## Show what can be made.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(VENV)/.installed  ## Train 8 SAC seeds on Pendulum at once; print a table, draw the curve.
	@run=runs/demo-$$(date +%Y%m%d-%H%M%S) && \
	$(BIN)/jaxsoft train sac gymnax/Pendulum-v1 --num-seeds 8 --out $$run && \
	$(BIN)/jaxsoft eval $$run

test: $(VENV)/.installed-dev  ## Run the tests (10 to 15 minutes on 2 cores).
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-thorough: $(VENV)/.installed-dev  ## Run those that take longer, beside a shorter test of nearly the same.
	$(BIN)/python -m pytest -n 2 -m thorough

test-slow: $(VENV)/.installed-dev  ## Run the long tests: whole trainings of the presets.
	$(BIN)/python -m pytest -m slow

soak: $(VENV)/.installed-dev  ## Kill runs over and over, and see that nothing is lost.
	$(BIN)/python -m pytest -m soak -s -v

check: lint types doctest readme test test-thorough  ## Everything that has to hold before a change lands.

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/pyright

doctest: $(VENV)/.installed-dev
	$(BIN)/python -m pytest --doctest-modules jaxsoft

readme: $(VENV)/.installed-dev  ## Run the README's commands as they stand there.
	$(BIN)/python tests/run_readme.py

format: $(VENV)/.installed-dev  ## Format the code.
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format .

clean:  ## Remove the virtual environment and caches; runs stay.
	rm -rf $(VENV) .pytest_cache .ruff_cache

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install --constraint constraints.txt --editable ".[dev]"
	@touch $@ $(VENV)/.installed
