# Everything a person runs here. Each target first makes the environment it needs, so a fresh machine needs
# only make and Python >= 3.11, and does so again only when pyproject.toml has changed.
#
#     PYTHON=python3.12 make test       with another interpreter
#     make test ARGS="-n 0 -k laws"     with more arguments for pytest

VENV ?= .venv
VENV_BENCH ?= .venv-bench
BENCHMARKS ?= $(filter-out benchmarks/_%,$(sort $(wildcard benchmarks/*.py)))
ARGS ?=

IS_SUPPORTED := import sys; sys.exit(sys.version_info < (3, 11))
GET_VERSION := import sys, venv; print("%d.%d" % sys.version_info[:2])
CANDIDATES := python3 python3.13 python3.12 python3.11 python3.14
PYTHON ?= $(shell for p in $(CANDIDATES); do $$p -c '$(IS_SUPPORTED)' 2>/dev/null && echo $$p && break; done)
PYTHON := $(PYTHON)
# Part of the stamps' names: another interpreter means another environment.
VERSION := $(shell $(PYTHON) -c '$(GET_VERSION)' 2>/dev/null)

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:  # two installs into one environment would break it
.PHONY: help demo test test-thorough lint format bench clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(MAKEFILE_LIST) | while IFS='|' read -r name what; \
		do printf '%-15s %s\n' "$$name" "$$what"; done

demo: $(VENV)/.has-examples  ## train on images in ArrayRecord files: seconds, on a CPU
	$(VENV)/bin/python examples/train_digits.py

# One process for each core: most of the time goes into compiling, which one process does on one core.
test: $(VENV)/.has-test  ## run the tests
	$(VENV)/bin/python -m pytest --numprocesses=auto --maxprocesses=4 $(ARGS)

test-thorough: $(VENV)/.has-test  ## run the tests with many random examples for each law
	HYPOTHESIS_PROFILE=thorough $(VENV)/bin/python -m pytest --numprocesses=auto --timeout=7200 $(ARGS)

lint: $(VENV)/.has-lint  ## check style, form and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(VENV)/.has-lint  ## format the code and mend what can be mended safely
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

bench: $(VENV_BENCH)/.has-bench  ## compare with other loaders, in an environment of its own (gigabytes)
	@for script in $(BENCHMARKS); do echo "== $$script"; $(VENV_BENCH)/bin/python $$script || exit 1; done

clean:  ## remove what these targets, the tools and the examples left behind
	rm -rf $(VENV) $(VENV_BENCH) build dist outputs .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment that fits and has pip is kept, whoever made it; any other is made anew.
$(VENV)/.python-$(VERSION) $(VENV_BENCH)/.python-$(VERSION):
	@$(PYTHON) -c '$(IS_SUPPORTED)' || \
		{ echo 'arsrc needs Python >= 3.11; name one: PYTHON=python3.12 make' >&2; exit 1; }
	@if [ "$$($(@D)/bin/python -c 'import pip; $(GET_VERSION)' 2>/dev/null)" != '$(VERSION)' ]; then \
		echo '$(PYTHON) -m venv $(@D)'; $(PYTHON) -m venv --clear $(@D) || \
		{ echo '$(PYTHON) has no venv; Debian and Ubuntu keep it in the package python3-venv' >&2; exit 1; }; fi
	@touch $@

$(VENV)/.has-%: $(VENV)/.python-$(VERSION) pyproject.toml
	$(@D)/bin/python -m pip install --quiet --editable '.[$*]'
	@touch $@

$(VENV_BENCH)/.has-%: $(VENV_BENCH)/.python-$(VERSION) pyproject.toml
	$(@D)/bin/python -m pip install --quiet --editable '.[$*]'
	@touch $@
