# Two commands on a fresh machine: `make demo` and `make test`. Both make their own virtual environment.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# The newest Python that is installed, of those the project is tried with; pyenv's are found where pyenv keeps them.
NEWEST_PYTHON ?= $(shell for version in 3.13 3.12 3.11; do \
  for python in python$$version "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/$$version*/bin/python; do \
    "$$python" -c "import venv" 2>/dev/null && echo "$$python" && exit; done; done)
NEWEST := .venv-newest
EXTRAS := .venv-extras
ACCELERATORS := .accelerators
FOR_CHIPS = JAX_PLATFORMS=cpu PYTHONPATH=$(ACCELERATORS) $(BIN)/python benchmarks/kernels.py

# What a change is most likely to break, of everything a little: settings, operators, files, the loop, and a short
# training by each way of learning.
QUICK := tests/training/test_config.py tests/test_imports.py tests/training/test_settings.py tests/reports/test_statistics.py \
  tests/training/test_replay.py tests/runs/test_reading.py tests/ops tests/agents/test_soft_q.py tests/agents/test_minibatches.py \
  tests/agents/test_td3.py::test_ddpg_has_one_critic_no_smoothing_and_no_delay \
  tests/training/test_schedule.py \
  tests/training/test_training.py::test_reported_episodes_are_those_that_ended_since_the_last_report \
  tests/training/test_training.py::test_scaled_rewards_are_learned_from_and_episodes_are_reported_in_the_environments_units \
  tests/training/test_turns.py::test_replayed_sequences_know_their_time_limits_and_their_behaviour \
  "tests/training/test_vmap.py::test_hyper_parameters_of_soft_q_can_be_vmapped[soft_q_stream-settings0]"

.PHONY: help demo reference quick test test-newest test-extras test-thorough test-slow soak bench-check check-accelerators check lint types doctest readme docs docs-serve format clean

help:  ## Show what can be made.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(VENV)/.installed  ## Train 8 SAC seeds on Pendulum at once; print a table, draw the curve.
	@run=runs/demo-$$(date +%Y%m%d-%H%M%S) && \
	$(BIN)/jaxsoft train sac gymnax/Pendulum-v1 --num-seeds 8 --out $$run && \
	$(BIN)/jaxsoft eval $$run

reference: $(VENV)/.installed-dev  ## Train and evaluate the reference results that are missing; BUDGET=60 stops after an hour.
	$(BIN)/python -m experiments.reference $(if $(BUDGET),--budget $(BUDGET))

quick: $(VENV)/.installed-dev  ## Tell in a minute whether a change is sane.
	$(BIN)/python -m pytest -n 2 --dist loadfile $(QUICK)

test: $(VENV)/.installed-dev  ## Run the tests (10 to 12 minutes on 2 cores).
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-newest: $(NEWEST)/.installed  ## Run the quick tests and train every agent with the newest Python and packages.
	$(NEWEST)/bin/python -m pytest -n 2 --dist loadfile $(QUICK)
	$(NEWEST)/bin/python tests/support/train_each_agent.py

test-extras: $(EXTRAS)/.installed  ## Run the tests of optional packages with all of them installed.
	$(EXTRAS)/bin/python -m pytest -n 2 tests/envs/test_optional_suites.py tests/reports/test_loggers.py tests/runs/test_export.py

test-thorough: $(VENV)/.installed-dev  ## Run those that take longer, beside a shorter test of nearly the same.
	$(BIN)/python -m pytest -n 2 -m thorough

test-slow: $(VENV)/.installed-dev  ## Run the long tests: whole trainings of the presets.
	$(BIN)/python -m pytest -m slow

soak: $(VENV)/.installed-dev  ## Kill runs over and over, and see that nothing is lost.
	$(BIN)/python -m pytest -m soak -s -v

check: lint types doctest docs readme test test-thorough test-newest test-extras bench-check  ## Everything that has to hold before a change lands.

bench-check: $(VENV)/.installed-dev  ## Count what turns are compiled to, against the committed counts.
	JAX_PLATFORMS=cpu $(BIN)/python benchmarks/kernels.py --check

check-accelerators: $(ACCELERATORS)/.installed  ## Compile every agent for an H100 and for TPUs, which need not be there, and count.
	$(FOR_CHIPS) --chip h100 --check
	$(FOR_CHIPS) --chip v5e:2x2 --check
	$(FOR_CHIPS) --chip v5e:2x2 --devices 4 --check

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/pyright

doctest: $(VENV)/.installed-dev
	$(BIN)/python -m pytest --doctest-modules jaxsoft

docs: $(VENV)/.installed-docs  ## Build the documentation into site/; a warning is an error.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

docs-serve: $(VENV)/.installed-docs  ## Show the documentation at http://127.0.0.1:8000, as it is written.
	$(BIN)/mkdocs serve

readme: $(VENV)/.installed-dev  ## Run the commands of the README and the guides as they stand there.
	$(BIN)/python tests/support/run_readme.py

format: $(VENV)/.installed-dev  ## Format the code.
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format .

clean:  ## Remove the virtual environment and caches; runs stay.
	rm -rf $(VENV) $(NEWEST) $(EXTRAS) $(ACCELERATORS) .pytest_cache .ruff_cache

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install --constraint constraints.txt --editable ".[dev]"
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install --constraint constraints.txt --editable ".[docs]"
	@touch $@ $(VENV)/.installed

# XLA's compilers for CUDA and TPUs, beside the virtual environment: in it, JAX would look for their devices.
$(ACCELERATORS)/.installed: $(VENV)/.installed-dev
	$(PIP) install --upgrade --no-deps --target $(ACCELERATORS) $$($(BIN)/python -m jaxsoft.bench.chips)
	@touch $@

$(NEWEST)/.installed: pyproject.toml
	"$(NEWEST_PYTHON)" -m venv --clear $(NEWEST)
	$(NEWEST)/bin/python -m pip --disable-pip-version-check --quiet install --editable ".[dev]"
	$(NEWEST)/bin/python -m pip list 2>/dev/null | grep -iE "^(jax|jaxlib|flax|optax|gymnax|brax|numpy) "
	@touch $@

$(EXTRAS)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear $(EXTRAS)
	$(EXTRAS)/bin/python -m pip --disable-pip-version-check --quiet install --constraint constraints.txt \
	  --editable ".[dev,onnx,playground,craftax,xminigrid,pgx,navix,wandb,trackio]"
	@touch $@
