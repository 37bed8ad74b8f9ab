# Every target sets itself up. `make` alone lists them.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
WORKERS ?= 2
# Two processes with one thread each beat one process with two: the matrices of these tests are small.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
PAGE := descant/assets/page/index.html
PAGE_PARTS := web/node_modules/.ready
PAGE_SOURCES := $(wildcard web/*.json web/*.ts web/*.html web/src/* web/src/*/*)
OFFLINE := HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1

.DEFAULT_GOAL := help
.PHONY: help setup page page-if-possible demo test fuzz lint parity eval-nano train-nano bench clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

setup: $(READY) page-if-possible  ## prepare .venv; then .venv/bin/descant is the command
	@echo "Ready. Try: .venv/bin/descant --help"

$(READY): pyproject.toml constraints.txt
	@echo "[1/4] making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "descant needs Python 3.11 or newer; name one: make setup PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@echo "[2/4] installing torch (the largest download, about 200 MB on a machine without a GPU)"
	@$(PY) -m pip install --disable-pip-version-check -c constraints.txt torch
	@echo "[3/4] installing the build tools"
	@$(PY) -m pip install --disable-pip-version-check -c constraints.txt hatchling editables
	@echo "[4/4] installing descant and what its tests and evaluations need (about 400 MB)"
	@$(PY) -m pip install --disable-pip-version-check -c constraints.txt --no-build-isolation -e '.[dev]'
	@touch $(READY)

page: $(PAGE)  ## build the page that the server shows (Node.js 20 with npm; about 60 MB are fetched once)

$(PAGE): $(PAGE_PARTS) $(PAGE_SOURCES)
	@echo "building the page"
	@cd web && npm run --silent build -- --logLevel warn
	@touch $(PAGE)

# Without a network it is told soon: make test asks each time.
$(PAGE_PARTS): web/package-lock.json
	@command -v npm >/dev/null || { echo "the page is built by npm; install Node.js 20 or newer, then: make page"; exit 1; }
	@echo "installing what builds the page"
	@cd web && npm ci --no-fund --no-audit --loglevel=error --prefer-offline --fetch-retries=1 --fetch-retry-mintimeout=1000
	@touch $(PAGE_PARTS)

# Everything but the page works without Node.js and without npm's registry.
page-if-possible:
	@if ! command -v npm >/dev/null; then echo "No npm here, so the page is not built; all else works. See: make page"; \
	else $(MAKE) --no-print-directory page || echo "The page could not be built; all else works. To see why: make page"; fi

demo: $(READY)  ## ask the embedded model six questions; answers are in out/demo
	@$(OFFLINE) $(PY) -m descant.cli.demo

test: lint page-if-possible  ## everything that must pass: lint, then all tests
	@echo "running the tests with $(WORKERS) workers"
	@$(ONE_THREAD) $(OFFLINE) $(PY) -m pytest tests -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

fuzz: $(READY)  ## longer: damaged media, requests by the schema, realtime talks beside a model; prints what was tried
	@$(ONE_THREAD) $(OFFLINE) $(PY) -m tests.fuzz.door --n 50000
	@$(ONE_THREAD) $(OFFLINE) $(PY) -m tests.fuzz.schema --n 5000
	@$(ONE_THREAD) $(OFFLINE) $(PY) -m tests.fuzz.talk --programs 2000 --steps 50

lint: $(READY)  ## ruff, and mypy --strict
	@echo "ruff"
	@$(VENV)/bin/ruff check --quiet .
	@echo "mypy --strict"
	@$(VENV)/bin/mypy

parity: $(READY)  ## compare every part with the reference; print part, case, largest difference
	@$(ONE_THREAD) $(OFFLINE) $(PY) -m pytest tests/parity --parity-table -n $(WORKERS) $(ARGS)

eval-nano: $(READY)  ## measure the embedded model on fresh held-out samples, with an independent recogniser
	@$(OFFLINE) $(VENV)/bin/descant eval nano --out out/eval

train-nano: $(READY)  ## train the embedded model (two cores, under three hours; it goes on where it was stopped)
	@for tool in flite espeak-ng; do command -v $$tool >/dev/null || missing="$$missing $$tool"; done; \
	if [ -n "$$missing" ]; then \
	  echo "train-nano speaks its training sentences with flite and espeak-ng; not found:$$missing"; \
	  echo "Install the Debian packages:  apt-get install flite espeak-ng"; \
	  echo "Nothing else in descant needs them."; exit 1; fi
	@$(ONE_THREAD) $(PY) -m descant.train recipes/nano.yaml --all --runs runs/nano $(ARGS)
	@mkdir -p descant/assets/nano && cp runs/nano/assemble/model/* descant/assets/nano/
	@echo "nano is in descant/assets/nano. Try: make demo"

bench: $(READY)  ## time descant beside transformers, in turns; figures, table and picture go to benchmarks/results
	@$(OFFLINE) $(VENV)/bin/descant bench --compare transformers --json benchmarks/results/bench.json $(ARGS)
	@$(PY) benchmarks/plot.py benchmarks/results/bench.json

clean:  ## remove what the targets made (not .venv, not runs/)
	rm -rf out build dist .mypy_cache .ruff_cache .pytest_cache web/node_modules descant/assets/page
