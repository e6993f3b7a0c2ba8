# Model Release Platform. `make help` lists every target.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MODEL ?= flight_delay
VERSION ?=
REASON ?=
URL ?= http://127.0.0.1:8000
BACKUP ?=
OVERWRITE ?=
SEEDS ?= 50
ENV_FILE ?= .env
DOCKER ?= docker
COMPOSE = $(DOCKER) compose --env-file $(ENV_FILE)
# While the stack is up the commands run in it, else on this machine; `=` and not `:=`, so that only they look.
STACK = $(shell test -e $(ENV_FILE) && $(COMPOSE) ps --quiet --status running dagster-code 2>/dev/null)
IN_STACK = $(COMPOSE) run --rm --no-deps $(if $(RELEASE_API_KEY),-e RELEASE_API_KEY)
RELEASE = $(if $(STACK),$(IN_STACK) cli,$(MAKE) --no-print-directory install && $(BIN)/release)
EVERYWHERE = $$(sed -n 's/^SERVING_URLS=//p' $(ENV_FILE)),http://proxy:8000
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes

export PYTHONHASHSEED := 0
export REASON
export OMP_NUM_THREADS ?= 2

.DEFAULT_GOAL := help
.PHONY: help install install-dev demo up down backup restore run-pipeline promote serve smoke-test dev e2e test lint types arch check mutants chaos fuzz soak bench bench-install bench-serving bench-beside bench-judge bench-abort bench-drift lock clean

help: ## List all targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'
	@echo "Variables: MODEL=flight_delay VERSION= REASON= URL=http://127.0.0.1:8000 BACKUP= OVERWRITE= SEEDS=50 PYTHON=python3 ENV_FILE=.env VERBOSE="

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python"; exit 1; }
	@echo "setting up $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.run: $(VENV)/.made requirements/build.txt requirements/platform.txt requirements/serving.txt pyproject.toml
	@echo "installing from the lock files (some minutes the first time) ..."
	@$(PIP) -r requirements/build.txt -r requirements/platform.txt -r requirements/serving.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements/dev.txt
	@echo "installing the development tools from the lock file ..."
	@$(PIP) -r requirements/dev.txt
	@touch $@

install: $(VENV)/.run ## Install the platform and serving into .venv from the lock files
install-dev: $(VENV)/.dev ## Install everything that tests and checks need

demo: install ## The whole life of MODEL on the embedded default, no server needed
	@$(BIN)/release demo $(MODEL)

up: ## The container stack: build, start, wait until all is well, print the addresses; needs Docker only
	@$(DOCKER) info >/dev/null 2>&1 || { echo "Docker does not answer: start it, or use 'make dev', which needs none."; exit 2; }
	@deploy/write-env $(ENV_FILE) && mkdir -p models
	@COMPOSE="$(COMPOSE)" deploy/pull $(ENV_FILE)
	@$(COMPOSE) build $(if $(VERBOSE),,--quiet)
	@$(COMPOSE) up --detach --wait --wait-timeout 600 --remove-orphans $$($(COMPOSE) config --services | grep -v '^serving-')
	@COMPOSE="$(COMPOSE)" deploy/replicas
	@deploy/addresses $(ENV_FILE)

down: ## Stop the container stack; its data stays in its volumes
	@$(COMPOSE) --profile '*' down --remove-orphans

backup: ## All that is kept, in one new file BACKUP=monday.tar; of the stack if it is up
	@test -n "$(BACKUP)" && test ! -e "$(BACKUP)" || { echo "Name a new file: make backup BACKUP=monday.tar"; exit 2; }
	@$(if $(STACK),COMPOSE="$(COMPOSE)" deploy/backup,$(RELEASE) backup) "$(BACKUP)"

restore: ## Take all back from the file BACKUP=; into the stack if there is ENV_FILE. OVERWRITE=1: over what is there
	@test -f "$(BACKUP)" || { echo "Name the file of a backup: make restore BACKUP=monday.tar"; exit 2; }
	@$(if $(wildcard $(ENV_FILE)),COMPOSE="$(COMPOSE)" deploy/restore,$(RELEASE) restore) "$(BACKUP)" $(if $(OVERWRITE),--overwrite)
	@$(if $(wildcard $(ENV_FILE)),$(MAKE) --no-print-directory up)
	@$(if $(wildcard $(ENV_FILE)),$(IN_STACK) cli,$(BIN)/release) ledger verify
	@$(if $(wildcard $(ENV_FILE)),$(IN_STACK) cli,$(BIN)/release) audit

run-pipeline: ## Train, judge and register MODEL, up to Staging; in the stack if it is up
	@$(RELEASE) run $(MODEL)

promote: ## Promote MODEL (VERSION=, default: Staging's) with REASON=; in the stack if it is up
	@$(RELEASE) promote $(MODEL) --reason "$$REASON" $(if $(VERSION),--version $(VERSION))

serve: ## Serve all Production versions on http://127.0.0.1:8000; the stack does so while it is up
	@$(if $(STACK),$(COMPOSE) up --detach --wait --no-deps --no-recreate proxy serving-1 serving-2 && deploy/addresses $(ENV_FILE),$(RELEASE) serve)

smoke-test: ## Ask the live server at URL the golden inputs of MODEL; in the stack every replica and the proxy
	@$(if $(STACK),$(IN_STACK) -e RELEASE_SERVING_URL="$(EVERYWHERE)" cli verify $(MODEL),\
	  $(RELEASE) verify $(MODEL) --url $(URL)) $(if $(VERSION),--version $(VERSION))

dev: install ## Dagster on 3000, MLflow on 5050 and serving on 8000 together; one Ctrl-C stops all
	@exec $(BIN)/release dev

e2e: install-dev ## The container stack end to end, on ports and volumes of its own; needs Docker
	@STACK_E2E=1 $(BIN)/python -m pytest tests/e2e/stack -s --timeout 1200

test: install-dev ## Pass all tests that need no extra server; what passes only the second time is listed as RERUN
	@$(BIN)/python -m pytest -n auto --dist loadfile --reruns 1

lint: install-dev ## Formatting and lint rules
	@$(BIN)/ruff format --check . && $(BIN)/ruff check .

types: install-dev ## Static types, strict
	@$(BIN)/mypy

arch: install-dev ## Which room may import which
	@$(BIN)/lint-imports

check: lint types arch ## lint, types and arch, and what dg checks
	@$(BIN)/dg check toml && $(BIN)/dg check yaml && $(BIN)/dg check defs

mutants: install-dev ## Plant defects in a copy of the code; each must be caught by the tests that it names
	@$(BIN)/python -m tests.mutants

chaos: install-dev ## Crashes at every moment, races and random histories, SEEDS of each; prints what it tried
	@CHAOS_SEEDS=$(SEEDS) $(BIN)/python -m pytest tests/chaos -s --timeout 7200

fuzz: install-dev ## 10,000 cases of the server's own schema and 100,000 spoilt bodies; FUZZ_SEED= for others
	@FUZZ_CASES=$${FUZZ_CASES:-10000} FUZZ_BODIES=$${FUZZ_BODIES:-100000} $(BIN)/python -m pytest tests/fuzz -s --timeout 7200

soak: install-dev ## 200 swaps of Production under 1,000,000 requests, each answer checked; then 2,000 slow sockets
	@SOAK_REQUESTS=$${SOAK_REQUESTS:-1000000} SOAK_SWAPS=$${SOAK_SWAPS:-200} SLOW_SOCKETS=2000 \
	  $(BIN)/python -m pytest tests/soak tests/integration/test_serving_slow_clients.py -s --timeout 7200

bench: install ## The platform's overhead against a plain script, side by side
	@$(BIN)/python benchmarks/pipeline.py

bench-install: install-dev ## What ours is compared with, servers and Evidently, each in its own .bench/<peer>
	@for peer in mlflow mlserver bentoml litserve kserve ray evidently; do \
	  echo "installing $$peer ..."; \
	  { $(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python .bench/$$peer && \
	    $(BIN)/uv pip sync --quiet --require-hashes --python .bench/$$peer/bin/python requirements/bench/$$peer.txt; } \
	  || { rm -rf .bench/$$peer; echo "LEFT OUT: $$peer could not be installed; the reason is above"; }; \
	done

bench-serving: install ## Our server against its peers and against no-op servers, side by side
	@$(BIN)/python benchmarks/serving.py

bench-beside: install ## What a shadow and the recording of requests cost the answers, without and with them in turns
	@$(BIN)/python benchmarks/beside.py

bench-judge: install ## How often the judge of live traffic is wrong, and how soon right, beside other rules
	@$(BIN)/python benchmarks/judge.py
	@$(BIN)/python benchmarks/judge_rollouts.py

bench-abort: install ## How long a canary that begins to be wrong goes on answering, in real minutes
	@$(BIN)/python benchmarks/abort_time.py

bench-drift: install ## How often drift alarms are false, and how soon they come, beside other rules; 2013 replayed
	@$(BIN)/python benchmarks/drift.py
	@$(BIN)/python benchmarks/flight_drift.py
	@$(BIN)/python benchmarks/dependent_drift.py

lock: install-dev ## Compile requirements/*.txt anew from pyproject.toml
	@for extra in dev platform serving build; do \
	  if [ $$extra = dev ]; then what="--extra platform --extra serving --extra tracing --extra launchers --extra build --extra dev"; else what="--extra $$extra --constraint requirements/dev.txt"; [ $$extra != platform ] || what="$$what --extra launchers"; fi; \
	  $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	    --no-emit-find-links --no-strip-extras --no-annotate --no-header $$what pyproject.toml --output-file requirements/$$extra.txt || exit 1; \
	done
	@for image in mlflow seaweedfs; do \
	  $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	    --no-emit-find-links --no-strip-extras --no-annotate --no-header --constraint requirements/dev.txt \
	    requirements/$$image.in --output-file requirements/$$image.txt || exit 1; \
	done
	@for peer in mlflow mlserver bentoml litserve kserve ray evidently; do \
	  $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	    --no-emit-find-links --no-strip-extras --no-annotate --no-header requirements/bench/$$peer.in \
	    --output-file requirements/bench/$$peer.txt || exit 1; \
	done

clean: ## Remove the virtual environments, caches and everything in .release
	rm -rf $(VENV) .bench .release .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build dist *.egg-info
