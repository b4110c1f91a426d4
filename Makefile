# Every target makes its own virtual environment; PYTHON chooses the interpreter (3.11 or later).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_STAMP := $(VENV)/.installed-demo
# The slowest tests are listed at the end; PYTEST=... passes options, such as -x or -k name.
PYTEST ?=

.PHONY: help demo check check-tests test test-jobs test-modules hosts chaos bench lint format clean

## This list.
help:
	@awk '/^## / {text = substr($$0, 4)} /^[a-z-]+:/ && text {split($$1, name, ":"); printf "make %-8s %s\n", name[1], text; text = ""}' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,oracles]'
	touch $(DEMO_STAMP) $(STAMP)

# The demo needs none of the packages that only tests use.
$(DEMO_STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[demo]'
	touch $(DEMO_STAMP)

## A fresh machine to a finished main job: sample bucket, training, segmentation, report.
demo: $(DEMO_STAMP)
	$(BIN)/python -m demo

## Style, types, import rules, and all tests without Ray, S3, browser or compiler: a minute or two.
check: $(STAMP)
	$(MAKE) --no-print-directory --jobs=2 lint check-tests

check-tests: $(STAMP)
	$(BIN)/python -m pytest --numprocesses 2 -m "not cluster and not services and not slow" $(PYTEST)

## All tests, on real parts. Jobs on clusters often wait, so two of them run at a time, and all other tests beside them.
test: $(STAMP)
	@echo "Jobs on clusters (one line per test) and tests of modules (dots) run side by side; the slowest tests end the lists."
	$(MAKE) --no-print-directory --jobs=2 test-jobs test-modules

test-jobs: $(STAMP)
	$(BIN)/python -u -m pytest --numprocesses 2 --dist worksteal -m cluster -vv $(PYTEST)

test-modules: $(STAMP)
	$(BIN)/python -u -m pytest -m "not cluster" $(PYTEST)

## Training and segmenting on real hosts that get lost (docs/hosts.md): network namespaces, so root is needed.
hosts: $(STAMP)
	$(BIN)/python -m tests.hosts

## Sweeps over every damaged file, request and order of deaths, then ten minutes of random faults; MINUTES and SEED to choose.
chaos: $(STAMP)
	EXHAUSTIVE=1 $(BIN)/python -m pytest tests/chaos/test_hostile_images.py tests/chaos/test_runs_without_ray.py \
		tests/chaos/test_poison.py tests/segmentation/test_blame.py
	$(BIN)/python -m tests.chaos.soak $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED))

## The short set of measurements beside their peers (docs/performance.md has the long one); quiet cores, 15 minutes.
bench: $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	BENCHMARK_RESULTS=bench-output $(BIN)/python -m benchmarks.last_step --rounds 5
	BENCHMARK_RESULTS=bench-output $(BIN)/python -m benchmarks.network --width 0.25 --rounds 3
	BENCHMARK_RESULTS=bench-output $(BIN)/python -m benchmarks.pipeline --images 1000 --slow 60

## Style, types and the import contract.
lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

## Style that can be mended, mended.
format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

## Everything that other targets made, removed.
clean:
	rm -rf $(VENV) demo-output bench-output
