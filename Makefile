# Two commands to start with: `make demo` and `make test`.
# Both install what they need into .venv first, and again when pyproject.toml or constraints.txt
# changes. Another interpreter: `make PYTHON=python3.12 demo`.

PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= synth,s3,dev

# Processes that run tests side by side.
TEST_WORKERS ?= 2

BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadscope --no-loadscope-reorder
STAMP := $(VENV)/.mien-installed

# No usage statistics leave a machine that runs our targets.
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := true
export RAY_USAGE_STATS_ENABLED := 0

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow lint style types contracts format clean

help: ## Lists the targets.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST) | expand -t 20

install: $(STAMP) ## Makes .venv and installs Mien with everything its tests need.

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than Python 3.11; say which to use: make PYTHON=python3.11" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

demo: install ## Built-in clips, training, evaluation, registry and a prediction, in minutes.
	$(BIN)/mien demo

test: install ## The tests, but for the slow ones.
	$(PYTEST) -m "not slow and not gpu" --durations=25

test-slow: install ## All tests that this machine can run.
	$(PYTEST) -m "not gpu"

lint: style types contracts ## Style, types and import contracts (`make -k lint` shows all faults).

style: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy
	MYPYPATH=benchmarks:tests $(BIN)/mypy --implicit-reexport --disable-error-code no-any-return \
		--disable-error-code import-untyped benchmarks

contracts: install
	$(BIN)/lint-imports

format: install ## Puts the code into the shape that lint asks for.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Removes what building and testing left (not .venv, not runs).
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find platform models jobs tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
