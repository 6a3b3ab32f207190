# allreview: `make` lists what there is to do. Works on a fresh Debian with git, make and Python.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# All of these can be set on the command line: make app PORT=8600, make test PYTEST_ARGS="-k leak". Tests run
# in as many processes as PROCESSES says.
# Another PYTHON is used once `make clean` has removed the environment made with the first.
PYTHON ?= python3
PORT ?= 8501
PYTEST_ARGS ?=
PROCESSES ?= 2
LOCK_ARGS ?=

VENV := .venv
IN_VENV := $(VENV)/bin/python
# TensorFlow 2.21 is published for these versions only.
PYTHONS := 3.11, 3.12 or 3.13

# What is installed is remembered by the content of the lock files, so a fresh checkout of the same files
# installs nothing.
sum = $(shell cat $(1) | cksum | cut -d' ' -f1)
APP_INSTALLED := $(VENV)/.requirements-$(call sum,requirements.txt)
DEV_INSTALLED := $(VENV)/.requirements-dev-$(call sum,requirements.txt requirements-dev.txt)
PIP_INSTALL := $(IN_VENV) -m pip install --disable-pip-version-check $(if $(CI),--quiet)

# Without a screen there is no browser to open. macOS sets neither variable and has a screen.
SCREEN := $(DISPLAY)$(WAYLAND_DISPLAY)$(filter Darwin,$(shell uname))
HEADLESS := $(if $(SCREEN),false,true)

# $(call debian_install,PACKAGES): install them from Debian, or say in one sentence why that can't be done.
define debian_install
if ! command -v apt-get >/dev/null; then
    echo "Missing here: $(1). There is no apt-get to install it with, so please install it and run make again." >&2
    exit 1
fi
if [ "$$(id -u)" = 0 ]; then
    as_root=()
elif command -v sudo >/dev/null; then
    as_root=(sudo)
else
    echo "Missing here: $(1). Please run 'apt-get install $(1)' as root (there is no sudo) and then make again." >&2
    exit 1
fi
echo "Installing from Debian: $(1)"
if ! { "$${as_root[@]}" apt-get update -qq &&
    "$${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -qq -y --no-install-recommends $(1) </dev/null; }; then
    echo "Debian's $(1) could not be installed (reason above): please install it and run make again." >&2
    exit 1
fi
endef

.PHONY: help app test slow lint format lock clean install install-dev test-packages
# Two apt-get or pip at once would lock each other out.
.NOTPARALLEL:

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 26

app: install ## Install what is missing and open the app (PORT=8501)
	@exec $(IN_VENV) -m streamlit run app.py --server.port $(PORT) --server.headless $(HEADLESS)

test: test-packages install-dev lint ## Install what is missing, run the checks and all tests but the slow (PYTEST_ARGS=)
	$(IN_VENV) -m pytest -n $(PROCESSES) --dist loadfile $(PYTEST_ARGS)

slow: test-packages install-dev ## Run the tests that take minutes
	$(IN_VENV) -m pytest -m slow $(PYTEST_ARGS)

lint: install-dev ## Check format, style, types and the direction of imports
	$(IN_VENV) -m ruff format --check .
	$(IN_VENV) -m ruff check .
	$(IN_VENV) -m pyright
	$(VENV)/bin/lint-imports

format: install-dev ## Format the code and repair what ruff can repair
	$(IN_VENV) -m ruff format .
	$(IN_VENV) -m ruff check --fix .

lock: install-dev ## Pin the dependencies anew from requirements*.in (LOCK_ARGS=--upgrade for newer ones)
	@for name in requirements requirements-dev; do
	    $(IN_VENV) -m uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url \
	        $(LOCK_ARGS) $$name.in -o $$name.txt
	done

clean: ## Remove the environment and caches; data/ stays
	rm -rf $(VENV) .pytest_cache .ruff_cache .import_linter_cache .hypothesis test-results
	find . -name __pycache__ -not -path './data/*' -prune -exec rm -rf {} +

install: $(APP_INSTALLED)

install-dev: $(DEV_INSTALLED)

$(VENV)/bin/pip:
	@if ! command -v $(PYTHON) >/dev/null; then
	    echo "There is no $(PYTHON) here: install Python $(PYTHONS), or name one with 'make PYTHON=/path/to/python3.12'." >&2
	    exit 1
	fi
	if ! $(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'; then
	    echo "allreview runs on Python $(PYTHONS), and $(PYTHON) is $$($(PYTHON) -V 2>&1): name another with 'make PYTHON=python3.12'." >&2
	    exit 1
	fi
	if ! $(PYTHON) -c 'import ensurepip' 2>/dev/null; then
	    $(call debian_install,$(notdir $(PYTHON))-venv)
	fi
	echo "Making a virtual environment in $(VENV) with $$($(PYTHON) -V)"
	$(PYTHON) -m venv $(VENV)

$(APP_INSTALLED): | $(VENV)/bin/pip
	@echo "Installing the locked dependencies into $(VENV): about 3 GB, once, a few minutes"
	$(PIP_INSTALL) -r requirements.txt
	rm -f $(VENV)/.requirements-*
	touch $@

$(DEV_INSTALLED): | $(APP_INSTALLED)
	@echo "Installing the development tools into $(VENV)"
	$(PIP_INSTALL) -r requirements-dev.txt
	rm -f $(VENV)/.requirements-dev-*
	touch $@

# Chromium for the browser tests, a PostgreSQL server for the store's tests.
test-packages:
	@missing=()
	command -v chromium >/dev/null || missing+=(chromium)
	command -v pg_ctl >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/pg_ctl' >/dev/null || missing+=(postgresql)
	if [ $${#missing[@]} -gt 0 ]; then
	    $(call debian_install,$${missing[*]})
	fi

