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
RUN := $(VENV)/bin/python -m moviegen
# Double quotes in bash, so that a folder's name may hold spaces; quotes inside it come through the environment.
export DATA
OPTIONS = --config "$(SCALE)" $${DATA:+--data.root "$$(realpath -m -- "$$DATA")"} $(ARGS)

.PHONY: help setup report html data plan test lint lab clean

help:  ## list the targets
	@echo "make TARGET [SCALE=tiny|1B|5B|30B] [DATA=/folder/with/clips] [ARGS='--sample.steps 10 ...']"
	@grep -hE '^[a-z]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:.*## /\t/' | sort | awk -F'\t' '{printf "  %-8s %s\n", $$1, $$2}'

setup: $(STAMP)  ## make .venv from the lock file

report: $(STAMP)  ## run what changed, then publish outputs/SCALE/html/index.html
	@$(RUN) report $(OPTIONS)

html: $(STAMP)  ## publish what has been run, run nothing
	@$(RUN) report --only-html $(OPTIONS)

data: $(STAMP)  ## check and split the clips; without DATA, render the sample set
	@$(RUN) data index $(OPTIONS)

plan: $(STAMP)  ## parameters, arithmetic and memory of every scale
	@for file in params/*.yaml; do $(RUN) plan --config "$$file"; echo; done

test: $(STAMP)  ## run the tests
	@$(VENV)/bin/python -m pytest $(ARGS)

lint: $(STAMP)  ## check style and import rules
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/lint-imports

lab: $(STAMP)  ## open the notebooks in JupyterLab
	@$(VENV)/bin/jupyter lab --notebook-dir=. notebooks/01_overview.ipynb

clean:  ## remove what was generated; .venv stays
	@rm -rf outputs

# The stamp is written last: an environment that was interrupted half-way does not count as made.
$(STAMP): requirements.lock pyproject.toml
	@rm -f $@
	@if command -v uv >/dev/null; then \
	  echo "making $(VENV) from requirements.lock with uv ..."; \
	  uv venv --quiet --allow-existing --python 3.11 $(VENV); \
	  uv pip sync --quiet --python $(VENV)/bin/python --require-hashes requirements.lock; \
	  uv pip install --quiet --python $(VENV)/bin/python --no-deps --no-build-isolation -e .; \
	else \
	  "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || { \
	    echo "error: $(PYTHON) is $$("$(PYTHON)" --version 2>&1 || true); this needs Python 3.11: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }; \
	  echo "making $(VENV) from requirements.lock (a few minutes: about 1 GB is downloaded) ..."; \
	  "$(PYTHON)" -m venv $(VENV); \
	  $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock; \
	  $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .; \
	fi
	@touch $@
