# `make run` sets up and serves the shipped bundle. `make test` sets up and tests everything.

PYTHON ?= python3
BUNDLE ?= bundles/m3h-open
HOST   ?= 127.0.0.1
PORT   ?= 8000
TUNED  ?= docs/tuned.json
DATA   ?= $(or $(M3H_DATA),../shared/data)
TARGET ?= gpu

BIN := .venv/bin
# Node.js comes from a wheel; npm finds node on the path.
NPM := PATH="$(CURDIR)/.venv/bin:$$PATH" npm
PIP := $(BIN)/pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.PHONY: help run test results tune cohorts page docs chart-docs image check prose format coverage system clean

help: ## list the commands
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

run: .venv/serve ## set up and serve the shipped bundle (no torch, no GPU, no Redis)
	$(BIN)/m3h-serve --bundle $(BUNDLE) --host $(HOST) --port $(PORT)

test: .venv/all web/node_modules system check ## set up, check and test everything
	$(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

results: .venv/all cohorts ## train every model of the report and write docs/results.md (resumable)
	$(BIN)/m3h-model evaluate --cohort runs/eicu --masked runs/eicu-masked --external runs/mimic_iv \
	  --images runs/nih_cxr --work runs/study --report docs \
	  $(if $(wildcard $(TUNED)),--tuned $(TUNED))

tune: .venv/all cohorts ## choose how each model of the report is trained, into docs/tuned.json (resumable)
	$(BIN)/m3h-model tune --cohort runs/eicu --external runs/mimic_iv --work runs/trials --out $(TUNED)

cohorts: .venv/all
	for cohort in eicu nih_cxr mimic_iv; do \
	  test -d runs/$$cohort || $(BIN)/m3h-model cohort $$cohort --out runs/$$cohort --data $(DATA) || exit; \
	done
	test -d runs/eicu-masked || $(BIN)/m3h-model cohort eicu --masked --out runs/eicu-masked --data $(DATA)

page: web/node_modules ## write docs/openapi.json, and build the dashboard from web/ into service/page
	$(BIN)/python scripts/openapi
	cd web && $(NPM) run types -- ../docs/openapi.json --output src/openapi.ts && $(NPM) run build

docs: .venv/all ## build the documentation into build/site; fails on any warning
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict # --quiet would also hide warnings from --strict

chart-docs: .venv/all ## write helm/README.md, and the descriptions of helm/values.schema.json
	$(BIN)/python scripts/chart-docs

image: ## build the container image with docker, podman or buildah: TARGET=gpu, cpu or train
	scripts/image $(TARGET) --build-arg BUNDLE=$(BUNDLE)

check: .venv/all web/node_modules prose ## lint, types, import rules, spelling and prose
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	cd web && $(NPM) run --silent check

prose: .venv/all ## spelling, and the prose rules of docs/styles/prose.toml
	$(BIN)/codespell
	$(BIN)/python scripts/prose

format: .venv/all web/node_modules ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	cd web && $(NPM) run --silent format

coverage: .venv/all ## line coverage of the tests; fails below 90 %
	$(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder \
	  --cov --cov-report=term:skip-covered --cov-fail-under=90

system: ## install missing system packages of the tests, if permitted
	@scripts/system-packages redis-server chromium buildah debootstrap podman runc prometheus haproxy

clean: ## remove the environment and all build results
	rm -rf .venv build runs web/node_modules *.egg-info

# Stamps: the environment is updated when the files that define it change.
.venv/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "m3h needs Python 3.11 or newer; set PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv .venv
	@touch $@

.venv/serve: .venv/python pyproject.toml constraints.txt
	$(PIP) install --constraint constraints.txt --editable .
	@touch $@

.venv/all: .venv/serve
	$(PIP) install --constraint constraints.txt --editable '.[train,test,docs]'
	@touch $@

web/node_modules: .venv/all web/package-lock.json
	cd web && $(NPM) ci --silent --no-fund --no-audit
	@touch $@
