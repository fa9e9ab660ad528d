# The report's commands; `make` alone lists them.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

SCALE ?= tiny
DATA ?=
ARGS ?=
PYTHON ?= python3

VENV := .venv
STAMP := $(VENV)/.made-from-lock
PARITY_VENV := .venv-parity
PARITY_STAMP := $(PARITY_VENV)/.made-from-lock
PARITY_REQUIREMENTS := tests/parity/requirements.txt
RUN := $(VENV)/bin/python -m moviegen
# Double quotes in bash, so that a folder's name may hold spaces; quotes inside it come through the environment.
export DATA
OPTIONS = --config "$(SCALE)" $${DATA:+--data.root "$$(realpath -m -- "$$DATA")"} $(ARGS)

.PHONY: help setup report html data plan test parity bench step-1B lint lab clean

help:  ## list the targets
	@echo "make TARGET [SCALE=tiny|1B|5B|30B] [DATA=/folder/with/clips] [ARGS='--sample.steps 10 ...']"
	@grep -hE '^[a-zA-Z0-9-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:.*## /\t/' | sort | awk -F'\t' '{printf "  %-8s %s\n", $$1, $$2}'

setup: $(STAMP)  ## make .venv from the lock file

report: $(STAMP)  ## run what changed, then publish outputs/SCALE/html/index.html
	@$(RUN) report $(OPTIONS)

html: $(STAMP)  ## publish what has been run, run nothing
	@$(RUN) report --only-html $(OPTIONS)

data: $(STAMP)  ## check and split the clips; without DATA, render the sample set
	@$(RUN) data index $(OPTIONS)

plan: $(STAMP)  ## parameters, arithmetic and memory of every scale
	@for file in params/*.yaml; do $(RUN) plan --config "$$file"; echo; done

test: $(STAMP)  ## run the tests; with ARGS=--all those of whole jobs too
	@$(VENV)/bin/python -m tests $(ARGS)

parity: $(PARITY_STAMP)  ## compare with PyTorch, diffusers and lpips, in an environment of their own
	@$(PARITY_VENV)/bin/python -m tests tests/parity/test_*.py $(ARGS)

bench: $(PARITY_STAMP)  ## time and memory against PyTorch: outputs/bench/bench.json
	@$(PARITY_VENV)/bin/python -m tests.bench $(ARGS)

step-1B: $(STAMP)  ## one training step of the 1B transformer, and a forward pass of the 5B one, on this machine
	@$(RUN) step --config 1B --dataset.size "[256, 256]" $(ARGS)
	@$(RUN) step --config 5B --forward --dataset.size "[256, 256]" $(ARGS)

lint: $(STAMP)  ## check style, types and import rules
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/mypy && $(VENV)/bin/lint-imports

lab: $(STAMP)  ## open the notebooks in JupyterLab
	@$(VENV)/bin/jupyter lab --notebook-dir=. notebooks/01_overview.ipynb

clean:  ## remove what was generated; the environments stay
	@rm -rf outputs

# $(1): the environment's folder.
define make-environment
@if command -v uv >/dev/null; then \
	  echo "making $(1) from requirements.lock with uv ..."; \
	  uv venv --quiet --allow-existing --python 3.11 $(1); \
	  uv pip sync --quiet --python $(1)/bin/python --require-hashes requirements.lock; \
	  uv pip install --quiet --python $(1)/bin/python --no-deps --no-build-isolation -e .; \
	else \
	  "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || { \
	    echo "error: $(PYTHON) is $$("$(PYTHON)" --version 2>&1 || true); this needs Python 3.11: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }; \
	  echo "making $(1) from requirements.lock (a few minutes: about 1 GB is downloaded) ..."; \
	  "$(PYTHON)" -m venv $(1); \
	  $(1)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock; \
	  $(1)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .; \
	fi
endef

# A stamp is written last: an environment that was interrupted half-way does not count as made.
$(STAMP): requirements.lock pyproject.toml
	@rm -f $@
	$(call make-environment,$(VENV))
	@touch $@

$(PARITY_STAMP): requirements.lock $(PARITY_REQUIREMENTS) pyproject.toml
	@rm -f $@
	$(call make-environment,$(PARITY_VENV))
	@echo "adding $(PARITY_REQUIREMENTS) ..."; \
	if command -v uv >/dev/null; then \
	  add=(uv pip install --quiet --python $(PARITY_VENV)/bin/python); \
	else \
	  add=($(PARITY_VENV)/bin/python -m pip install --quiet --disable-pip-version-check); \
	fi; \
	"$${add[@]}" "$$(grep '^torch==' $(PARITY_REQUIREMENTS))"; \
	"$${add[@]}" --no-deps -r $(PARITY_REQUIREMENTS)
	@touch $@
