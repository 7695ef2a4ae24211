# Two commands do all the set-up: `make run` serves the shipped bundle, `make test` tests everything.

PYTHON ?= python3
BUNDLE ?= bundles/m3h-open
HOST   ?= 127.0.0.1
PORT   ?= 8000
TUNED  ?= docs/tuned.json
DATA   ?= $(or $(M3H_DATA),../shared/data)
TARGET ?= gpu

BIN := .venv/bin
# Node.js comes from a wheel, as all else that is not of the system; npm finds node on the path.
NPM := PATH="$(CURDIR)/.venv/bin:$$PATH" npm
PIP := $(BIN)/pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.PHONY: help run test results tune cohorts page image check format system clean

help: ## list the commands
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run: .venv/serve ## set up and serve the shipped bundle (no torch, no GPU, no Redis)
	$(BIN)/m3h-serve --bundle $(BUNDLE) --host $(HOST) --port $(PORT)

test: .venv/all web/node_modules system check ## set up, check and test everything
	$(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

results: .venv/all cohorts ## train every model of the report and write docs/results.md (resumable)
	$(BIN)/m3h-model evaluate --cohort runs/eicu --masked runs/eicu-masked --external runs/mimic_iv \
	  --work runs/study --report docs \
	  $(if $(wildcard $(TUNED)),--tuned $(TUNED))

tune: .venv/all cohorts ## choose how each model of the report is trained, into docs/tuned.json (resumable)
	$(BIN)/m3h-model tune --cohort runs/eicu --external runs/mimic_iv --work runs/trials --out $(TUNED)

cohorts: .venv/all
	for cohort in eicu nih_cxr mimic_iv; do \
	  test -d runs/$$cohort || $(BIN)/m3h-model cohort $$cohort --out runs/$$cohort --data $(DATA) || exit; \
	done
	test -d runs/eicu-masked || $(BIN)/m3h-model cohort eicu --masked --out runs/eicu-masked --data $(DATA)

page: web/node_modules ## build the dashboard from web/ into service/page
	mkdir -p build
	$(BIN)/python scripts/openapi > build/openapi.json
	cd web && $(NPM) run types -- ../build/openapi.json --output src/openapi.ts && $(NPM) run build

image: ## build the container image with docker, podman or buildah: TARGET=gpu, cpu or train
	scripts/image $(TARGET) --build-arg BUNDLE=$(BUNDLE)

check: .venv/all ## lint, types, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/all ## put the code in its one format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

system: ## what the tests need of the system, where it is missing and we may install it
	@scripts/system-packages redis-server chromium buildah debootstrap podman runc prometheus haproxy

clean: ## remove the environment and all that was made
	rm -rf .venv build runs web/node_modules *.egg-info

# Stamps: the environment is made anew when what it is made of changes.
.venv/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "m3h needs Python 3.11 or newer; name one with PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv .venv
	@touch $@

.venv/serve: .venv/python pyproject.toml constraints.txt
	$(PIP) install --constraint constraints.txt --editable .
	@touch $@

.venv/all: .venv/serve
	$(PIP) install --constraint constraints.txt --editable '.[train,test]'
	@touch $@

web/node_modules: .venv/all web/package-lock.json
	cd web && $(NPM) ci --silent --no-fund --no-audit
	@touch $@
