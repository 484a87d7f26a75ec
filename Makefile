# Everything a person runs here. Each target first makes the environment it needs, so a fresh machine needs
# only make and Python >= 3.11, and does so again only when pyproject.toml has changed.
#
#     make test PYTHON=python3.13       with another interpreter, in an environment of its own: .venv-3.13
#     make test ARGS="-n 0 -k laws"     with more arguments for pytest

VENV_BENCH ?= .venv-bench
BENCHMARKS ?= $(filter-out benchmarks/_% benchmarks/soak.py,$(sort $(wildcard benchmarks/*.py)))
SOAK_SECONDS ?= 3600
ARGS ?=

IS_SUPPORTED := import sys; sys.exit(sys.version_info < (3, 11))
IS_NEWEST := import ensurepip, sys, venv; sys.exit(sys.version_info[:2] not in ((3, 12), (3, 13)))
GET_VERSION := import sys, venv; print("%d.%d" % sys.version_info[:2] + sys.abiflags)
first = $(shell for p in $(1); do $$p -c '$(2)' 2>/dev/null && echo $$p && break; done)

# The benchmarks run where the newest peers do, if that is on this machine. Pythons of pyenv are named in full:
# its commands on the path work only for versions that it was told to use.
PYENV_ROOT ?= $(HOME)/.pyenv
interpreters = $(foreach python,$(1),$(python) $(wildcard $(PYENV_ROOT)/versions/$(python:python%=%).*/bin/python))
ifdef PYTHON
override PYTHON := $(or $(call first,$(call interpreters,$(PYTHON)),$(IS_SUPPORTED)),$(PYTHON))
VENV ?= .venv-$(VERSION)
else
PYTHON_BENCH := $(call first,$(call interpreters,python3.13 python3.12),$(IS_NEWEST))
PYTHON := $(call first,python3 python3.13 python3.12 python3.11 python3.14,$(IS_SUPPORTED))
VENV ?= .venv
endif
PYTHON_BENCH := $(or $(PYTHON_BENCH),$(PYTHON))
# Part of the stamps' names: another interpreter means another environment.
VERSION := $(shell $(PYTHON) -c '$(GET_VERSION)' 2>/dev/null)
VERSION_BENCH := $(shell $(PYTHON_BENCH) -c '$(GET_VERSION)' 2>/dev/null)

# What PyPI has for Linux brings gigabytes of CUDA, which `make bench TORCH=torch` takes.
TORCH ?= torch==2.13.0+cpu
TORCH_INDEX := https://download.pytorch.org/whl/cpu

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:  # two installs into one environment would break it
.PHONY: help demo test test-thorough fuzz soak lint format reference bench clean

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

soak: $(VENV)/.has-test  ## do everything at once for an hour: does anything grow?
	$(VENV)/bin/python benchmarks/soak.py --seconds $(SOAK_SECONDS)

fuzz: $(VENV)/.has-test  ## look for bad files that do harm: FUZZ_SECONDS=300 FUZZ_SEED=(of a run to see again)
	$(VENV)/bin/python tests/fuzz_files.py

lint: $(VENV)/.has-lint  ## check style, form and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(VENV)/.has-lint  ## format the code and mend what can be mended safely
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

reference: $(VENV)/.has-lint  ## write docs/reference.md from the docstrings
	$(VENV)/bin/python docs/make_reference.py

bench: $(VENV_BENCH)/.has-bench  ## compare with other loaders, in an environment of its own (gigabytes)
	@$(PYTHON_BENCH) -c '$(IS_NEWEST)' || echo 'Python $(VERSION_BENCH): the newest peers run on 3.12 and 3.13.' \
		'On 3.11 datarax ends at 0.1.4, JAX at 0.10 and NumPy at 2.4; on 3.14 there is no datarax.'
	@for script in $(BENCHMARKS); do echo "== $$script"; $(VENV_BENCH)/bin/python $$script || exit 1; done

clean:  ## remove what these targets, the tools and the examples left behind
	rm -rf $(VENV) $(VENV_BENCH) .venv-3.* build dist outputs .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment that fits and has pip is kept, whoever made it; any other is made anew.
$(VENV)/.python-$(VERSION): INTERPRETER := $(PYTHON)
$(VENV_BENCH)/.python-$(VERSION_BENCH): INTERPRETER := $(PYTHON_BENCH)
$(VENV)/.python-$(VERSION) $(VENV_BENCH)/.python-$(VERSION_BENCH):
	@$(INTERPRETER) -c '$(IS_SUPPORTED)' || \
		{ echo 'arsrc needs Python >= 3.11; name one: PYTHON=python3.12 make' >&2; exit 1; }
	@if [ "$$($(@D)/bin/python -c 'import pip; $(GET_VERSION)' 2>/dev/null)" != '$(@:$(@D)/.python-%=%)' ]; then \
		echo '$(INTERPRETER) -m venv $(@D)'; $(INTERPRETER) -m venv --clear $(@D) || \
		{ echo '$(INTERPRETER) has no venv; Debian and Ubuntu keep it in the package python3-venv' >&2; exit 1; }; fi
	@touch $@

$(VENV)/.has-%: $(VENV)/.python-$(VERSION) pyproject.toml
	$(@D)/bin/python -m pip install --quiet --editable '.[$*]'
	@touch $@

$(VENV_BENCH)/.has-bench: $(VENV_BENCH)/.python-$(VERSION_BENCH) pyproject.toml
	$(@D)/bin/python -m pip install --quiet --editable '.[bench]'
	$(@D)/bin/python -m pip install --quiet --retries 0 --extra-index-url $(TORCH_INDEX) '$(TORCH)' || \
		echo 'PyTorch is left out: there is no $(TORCH) within reach for Python $(VERSION_BENCH)'
	@touch $@
