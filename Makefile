# Two commands do all the set-up: make demo (the main job on the bundled samples) and make test (all tests).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help demo test lint format bench bench-int8 bench-runtime results clean
help:
	@echo "make demo     compile, replay, gate and release the bundled detector on this CPU"
	@echo "make test     all tests"
	@echo "make lint     ruff, mypy, import-linter"
	@echo "make bench    benchmarks against the raw limit and a plain script; writes docs/results/*.json"
	@echo "make bench-runtime  the deadline runtime: overhead, throughput beside peers, four cameras, overload, faults"
	@echo "make bench-int8  INT8 beside NNCF's and ONNX Runtime's; hours, goes on where it was stopped (build/bench_int8)"
	@echo "make results  print the benchmark results"
	@echo "make clean    remove the environment and everything made"

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "$(PYTHON) is older than 3.10; run: make PYTHON=python3.10 (or newer) $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	@touch $@

$(VENV)/.factory: $(VENV)/.made pyproject.toml
	$(BIN)/pip install --quiet --editable '.[factory]'
	@touch $@

$(VENV)/.dev: $(VENV)/.made pyproject.toml
	$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $(VENV)/.factory $@

demo: $(VENV)/.factory
	$(BIN)/python scripts/demo.py

test: $(VENV)/.dev
	$(BIN)/pytest

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev
	$(BIN)/pytest tests/benchmarks --benchmark-only --benchmark-columns=median,iqr,rounds --override-ini "addopts="
	$(BIN)/python scripts/results.py

bench-runtime: $(VENV)/.dev .venv-peer/.made
	$(BIN)/python -m tests.benchmarks.runtime --peer-python .venv-peer/bin/python

.venv-peer/.made:
	$(PYTHON) -m venv .venv-peer
	.venv-peer/bin/pip install --quiet openvino openvino-model-api onnx
	@touch $@

$(VENV)/.peers: $(VENV)/.dev
	$(BIN)/pip install --quiet --editable '.[dev,peers]'
	@touch $@

bench-int8: $(VENV)/.peers
	$(BIN)/python -m tests.benchmarks.int8

results: $(VENV)/.factory
	$(BIN)/python scripts/results.py

clean:
	rm -rf $(VENV) build *.egg-info out
