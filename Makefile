# Every target does its own set-up: on a fresh machine `make demo` and `make test` are the only commands to type.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
OUT ?= demo-out

# Processes that run tests beside each other: each loads torch, and some of their tests start programs of their own.
WORKERS ?= 2

.PHONY: demo quality test check static format lint types contracts setup clean

setup: $(STAMP)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# pip would compile what it installs on one core; compileall uses all. What isn't Python of this version stays as it is.
$(STAMP): $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --no-compile --progress-bar on torch==$$(sed -n 's/^torch==//p' constraints.txt)
	$(BIN)/pip install --quiet --no-compile --progress-bar on --constraint constraints.txt --editable '.[demo,dev]'
	$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/kinoswarm demo --out $(OUT)

# Hours of two cores from nothing; finished cells are kept, so it may be stopped and started again at any time.
quality: $(STAMP)
	$(BIN)/python -m benchmarks.quality run
	$(BIN)/python -m benchmarks.quality table
	$(BIN)/python -m benchmarks.quality plot

test: $(STAMP)
	KINOSWARM_SCREENSHOTS=$(CURDIR)/screenshots $(BIN)/python -m pytest -m "not slow" \
		--numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

check: static test

# mypy takes one core for longer than the others together take another; each says all that it has to say in one piece.
static: $(STAMP)
	$(MAKE) --no-print-directory --jobs 2 --output-sync --keep-going types format lint contracts

format: $(STAMP)
	$(BIN)/ruff format --check .

lint: $(STAMP)
	$(BIN)/ruff check .

types: $(STAMP)
	$(BIN)/mypy

contracts: $(STAMP)
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) screenshots .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
