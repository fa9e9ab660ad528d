# The report's commands; `make` alone lists them.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

SCALE ?= tiny
DATA ?=
ARGS ?=
ASSETS ?=
PYTHON ?=
DRYRUN ?=
FORCE ?=

VENV := .venv
PARITY_VENV := .venv-parity
RUN := $(VENV)/bin/python -m moviegen
# As it was typed, and read by bash from the environment: a folder's name may hold anything.
override DATA := $(value DATA)
export DATA
# They would take the environment's own Python away from it, and this folder out of its path.
unexport PYTHONHOME PYTHONSAFEPATH

# What a program is told, as bash's "$@". Not every shell has made a home folder of `DATA=~/clips`.
define options
[[ "$$DATA" != "~/"* ]] || DATA="$${HOME}$${DATA#"~"}"
set -- --config "$(SCALE)" $${DATA:+--data.root "$$(realpath -m -- "$$DATA")"} $(if $(ASSETS),--assets $(ASSETS)) $(ARGS)
endef

COMPILE := from moviegen.device import compiled; compiled.prepare()

# A parameter is given once.
options_of_step = $(if $(findstring dataset.size,$(ARGS)),,--dataset.size "[256, 256]") $(ARGS)

.PHONY: help setup parity-setup report html verify reproduce archive pdf data pretrain plan test test-site parity bench step-1B scale-proof lint lab demo clean

help:  ## list the targets
	@echo "make TARGET [SCALE=tiny|1B|5B|30B] [DATA=/folder/with/clips] [ASSETS=none] [ARGS='--sample.steps 10 ...']"
	@grep -hE '^[a-zA-Z0-9-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:.*## /\t/' | sort | awk -F'\t' '{printf "  %-8s %s\n", $$1, $$2}'

setup:  ## make .venv from the lock file, and compile the operators, where it is not yet done
	@($(call make-environment,$(VENV),))
	$(VENV)/bin/python -c '$(COMPILE)'

parity-setup:
	@($(call make-environment,$(PARITY_VENV),tests/parity/requirements.txt))
	$(PARITY_VENV)/bin/python -c '$(COMPILE)'

report: setup  ## run what changed, then publish outputs/SCALE/html/index.html
	@$(options)
	$(RUN) report "$$@"

html: setup  ## publish what has been run, run nothing
	@$(options)
	$(RUN) report --only-html "$$@"

verify: setup  ## derive every number of the published pages again from outputs/SCALE/runs, and compare
	@$(options)
	$(RUN) verify "$$@"

# The second report has an outputs folder of its own, with the first one's assets and proofs: neither is fetched or
# measured again.
reproduce: report  ## make the report a second time, from nothing, and compare every number and figure with the first
	@$(options)
	outputs=$$(realpath -- "$${MOVIEGEN_OUTPUTS:-outputs}")
	again="$$outputs/$(SCALE)/again"
	rm -rf "$$again"
	mkdir -p "$$again"
	for shared in assets scale-proof; do
	  [ ! -d "$$outputs/$$shared" ] || ln -s "$$outputs/$$shared" "$$again/$$shared"
	done
	MOVIEGEN_OUTPUTS="$$again" $(RUN) report "$$@"
	status=0
	$(RUN) verify "$$@" --against "$$again" || status=$$?
	$(RUN) report "$$@"  # its appendix says how they compare
	exit $$status

archive: setup  ## the published pages as one file, outputs/SCALE/moviegen-SCALE.zip: same pages, same bytes
	@$(options)
	$(RUN) archive "$$@"

pdf: html  ## the same as one PDF, outputs/SCALE/report.pdf, printed by the system's Chromium
	@$(options)
	$(RUN) pdf "$$@"

data: setup  ## check and split the clips; without DATA, render the sample set
	@$(options)
	$(RUN) data index "$$@"

pretrain: setup  ## train the networks of params/weights/ from nothing: some two hours on two cores, resumed where it was
	@$(RUN) data index --config pretrain
	$(RUN) tae train --phase image --config pretrain
	$(RUN) ship image-autoencoder --config pretrain
	$(RUN) tae train --phase image opl-off mixkit --config pretrain --tae.vae_checkpoint params/weights/image-autoencoder.safetensors
	$(RUN) ship tae --config pretrain
	$(RUN) report --config small
	$(RUN) ship transformer --config small

plan: setup  ## what every scale costs, and whether it fits; with DRYRUN=1 memory by MindSpore's dry run, which needs CANN
	@for file in params/*.yaml; do $(RUN) plan --config "$$file" $(if $(DRYRUN),--dry-run) $(ARGS); echo; done

test: setup  ## run the tests; with ARGS=--all those of whole jobs too
	@$(VENV)/bin/python -m tests $(ARGS)

test-site: setup  ## test what was published of SCALE in the system's Chromium; screenshots beside it
	@$(call add-packages,$(BROWSER))
	$(VENV)/bin/python -m pytest tests/browser --confcutdir tests/browser --site "$${MOVIEGEN_OUTPUTS:-outputs}/$(SCALE)/html" $(ARGS)

parity: parity-setup  ## compare with PyTorch, diffusers and lpips, in an environment of their own
	@$(PARITY_VENV)/bin/python -m tests tests/parity/test_*.py $(ARGS)

bench: parity-setup  ## time and memory against PyTorch: outputs/bench/bench.json
	@$(PARITY_VENV)/bin/python -m tests.bench $(ARGS)

step-1B: setup  ## one training step of the 1B transformer, and a forward pass of the 5B one, on this machine
	@$(RUN) step --config 1B $(options_of_step)
	$(RUN) step --config 5B --forward $(options_of_step)

scale-proof: setup  ## measure on this CPU what large jobs need, against the plan: half an hour at most, for the report's page
	@$(options)
	$(RUN) prove "$$@"

lint: setup  ## check style, types and import rules
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/mypy && $(VENV)/bin/lint-imports

lab: setup  ## open the notebooks in JupyterLab
	@export JUPYTER_PATH="$$PWD/$(VENV)/share/jupyter$${JUPYTER_PATH:+:$$JUPYTER_PATH}"  # its python3 before all others
	[ "$$(id -u)" != 0 ] || set -- --allow-root  # which JupyterLab wants to be told
	executed=("$${MOVIEGEN_OUTPUTS:-outputs}"/*/notebooks/*.ipynb)  # by the report: else Jupyter leaves their style out
	[ ! -e "$${executed[0]}" ] || $(VENV)/bin/jupyter trust "$${executed[@]}" >/dev/null || true
	$(VENV)/bin/jupyter lab --notebook-dir=. notebooks/01_overview.ipynb "$$@" $(ARGS)

demo: setup  ## a local web page that samples prompts of your own, by Gradio, which it adds to .venv
	@$(call add-packages,$(DEMO))
	$(options)
	$(RUN) demo "$$@"

clean:  ## remove what was generated, after asking where training left something; with FORCE=1 at once; the environments stay
	@left=$$([ ! -d outputs ] || find -L outputs -mindepth 1 \( -name checkpoints -o -name '*.safetensors' \) -prune -print | sort)
	if [ -n "$$left" ] && [ -z "$(FORCE)" ]; then
	  echo "outputs/ holds what training left:" >&2
	  sed 's/^/  /; 10q' <<<"$$left" >&2
	  [ -t 0 ] || { echo "error: nothing was removed, as nobody is there to ask: make clean FORCE=1" >&2; exit 1; }
	  read -r -p "Remove all of outputs/? Type yes: " answer
	  [ "$$answer" = yes ] || { echo "error: nothing was removed" >&2; exit 1; }
	fi
	rm -rf outputs

# Variables that have an installer put packages elsewhere, others, or none; where it finds them stays as the user says.
MISLEADING := PYTHONPATH VIRTUAL_ENV $(addprefix PIP_,TARGET PREFIX ROOT PYTHON PYTHON_VERSION PLATFORM ABI IMPLEMENTATION \
  NO_BINARY ONLY_BINARY CONSTRAINT BUILD_CONSTRAINT REQUIREMENT REQUIRE_HASHES DRY_RUN UPLOADED_PRIOR_TO) \
  $(addprefix UV_,SYSTEM_PYTHON PROJECT PROJECT_ENVIRONMENT WORKING_DIR WORKING_DIRECTORY NO_BINARY NO_BINARY_PACKAGE \
  NO_BUILD NO_BUILD_PACKAGE CONSTRAINT BUILD_CONSTRAINT OVERRIDE EXCLUDE EXCLUDE_NEWER REQUIRE_HASHES RESOLUTION \
  PRERELEASE TORCH_BACKEND)
IS_3_11 := import sys; sys.exit(sys.version_info[:2] != (3, 11))

# $(1): the environment's folder. $(2): what is installed beside the lock file, if anything.
# Its stamp says what it was made from, where, as its scripts and the link to this folder name their places. It is written
# last: an environment that was interrupted half-way does not count as made.
define make-environment
unset $(MISLEADING)
export PIP_USER=0  # in pip.conf it may be 1
made_from=$$(cat requirements.lock pyproject.toml $(2) <(pwd -P) <(realpath -m $(1)) | sha256sum)
if [ "$$(cat $(1)/.made-from 2>/dev/null)" = "$$made_from" ] && $(1)/bin/python -c '$(IS_3_11)' 2>/dev/null; then
  exit 0
fi
pip=(uv pip)
to=(--quiet --python $(1)/bin/python)
if ! command -v uv >/dev/null; then
  pip=($(1)/bin/python -m pip)
  to=(--quiet --disable-pip-version-check)
  for python in "$(or $(PYTHON),python3.11)" "$(or $(PYTHON),python3)"; do
    ! "$$python" -c '$(IS_3_11)' 2>/dev/null || break
  done
  "$$python" -c '$(IS_3_11)' 2>/dev/null || {
    echo "error: $$python is $$("$$python" --version 2>&1 || true); this needs Python 3.11: make PYTHON=/path/to/python3.11 ..." >&2
    exit 1
  }
  python=$$("$$python" -c 'import sys; print(sys._base_executable)')  # not the one in $(1), which goes first
fi
echo "making $(1) from requirements.lock with $${pip[*]} (without a cache about 1 GB is downloaded) ..."
rm -f $(1)/.made-from
[ ! -d $(1) ] || find $(1)/ -mindepth 1 -delete
if [ "$${pip[0]}" = uv ]; then
  uv venv --quiet --allow-existing --python 3.11 $(1)
  uv pip sync "$${to[@]}" --require-hashes requirements.lock
else
  "$$python" -m venv $(1)
  "$${pip[@]}" install "$${to[@]}" --require-hashes -r requirements.lock
fi
"$${pip[@]}" install "$${to[@]}" --no-deps --no-build-isolation -e .
if [ -n "$(2)" ]; then
  echo "adding $(2) ..."
  "$${pip[@]}" install "$${to[@]}" "$$(grep '^torch==' $(2))"
  "$${pip[@]}" install "$${to[@]}" --no-deps -r $(2)
fi
(cd notebooks && ../$(1)/bin/python -c 'import moviegen, papermill') || {
  echo "error: what was installed is not in $(1): look for a target or a prefix in \`pip config list\`" >&2
  exit 1
}
echo "$$made_from" >$(1)/.made-from
endef

# Added to the environment when they are first asked for: no report needs them. $(1): a file of packages.
BROWSER := tests/browser/requirements.txt
DEMO := requirements-demo.lock
define add-packages
[ "$$(cat $(VENV)/.added-$(notdir $(1)) 2>/dev/null)" = "$$(cat $(1))" ] || (
  unset $(MISLEADING)
  export PIP_USER=0
  install=(uv pip install --quiet --python $(VENV)/bin/python)
  command -v uv >/dev/null || install=($(VENV)/bin/python -m pip install --quiet --disable-pip-version-check)
  echo "adding $(1) ..."
  "$${install[@]}" --no-deps --require-hashes -r $(1)
  cp $(1) $(VENV)/.added-$(notdir $(1))
)
endef
