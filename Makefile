# `make demo` and `make test` need Python 3.11 or newer, git and make, and nothing else.
#
#   make demo                    the simulator, and the server in front of it
#   make test                    every test; ARGS="-k queue" picks some
#   make soak                    six hours of every fault in minutes, half a minute of cancelling,
#                                a thousand deaths of the server, and mutants of its store
#   make check                   format, lint, types, import contracts, links, the wheel
#   make bench                   the figures of benchmarks/; ARGS=--quick for a glance
#   make lock                    write the versions of pyproject.toml anew; ARGS=--upgrade for newer ones
#   make clean                   take away what tests, checks and builds leave behind
#
# PYTHON=python3.12 chooses the interpreter that makes the environment.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=

# A stamp is as old as the last installation from its lock. The tools' environment can run the demo too.
STAMP_RUN := $(VENV)/.installed-run
STAMP_DEV := $(VENV)/.installed-dev
STAMP_DEMO := $(if $(wildcard $(STAMP_DEV)),$(STAMP_DEV),$(STAMP_RUN))

INSTALL := PYTHON="$(PYTHON)" VENV="$(VENV)" sh scripts/install

.PHONY: help demo test soak check bench lock clean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^# \{0,1\}//; 1,/PYTHON=/p' Makefile

demo: $(STAMP_DEMO)
	@$(VENV)/bin/python main.py demo $(ARGS)

test: $(STAMP_DEV)
	@$(VENV)/bin/python -m pytest -n 2 $(ARGS)

soak: $(STAMP_DEV)
	@IM_SOAK_HOURS=6 $(VENV)/bin/python -m pytest -n 0 -s tests/test_soak.py $(ARGS)
	@IM_SOAK=1 $(VENV)/bin/python -m pytest -n 0 tests/utils/test_cancel_churn.py tests/routes/test_churn.py $(ARGS)
	@IM_SOAK=1 $(VENV)/bin/python -m pytest -n 0 tests/durability --timeout 7200 $(ARGS)
	@$(VENV)/bin/python -m tests.durability.mutants

check: $(STAMP_DEV)
	@VENV="$(VENV)" bash scripts/check

bench: $(STAMP_DEV)
	@set -e; for file in benchmarks/[a-z]*.py; do echo "== $$file"; $(VENV)/bin/python $$file $(ARGS); done

lock: $(STAMP_DEV)
	@VENV="$(VENV)" sh scripts/lock $(ARGS)

clean:
	@rm -rf build dist *.egg-info demo-output conformance-results .coverage* .hypothesis \
	    .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(STAMP_RUN): requirements.txt
	@$(INSTALL) requirements.txt
	@touch $@

$(STAMP_DEV): requirements-dev.txt
	@$(INSTALL) requirements-dev.txt
	@touch $@
