# `make demo` and `make test` need make and Python 3.10 or newer, and set up the rest in .venv.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/omnitraining-installed

.DEFAULT_GOAL := help
.PHONY: help install demo test bench matrix docs lint clean

help:
	@echo 'make install   make .venv and install omnitraining in it, with what developers need'
	@echo 'make demo      train and compare on the small demo; the result is in runs/demo'
	@echo 'make test      ruff, mypy and pytest'
	@echo 'make bench     measure speed and memory'
	@echo 'make matrix    the wheel in fresh environments: each Python, the oldest and the newest torch'
	@echo 'make docs      build the documentation in build/site; a dead link is an error'
	@echo 'make lint      ruff and mypy'
	@echo 'make clean     remove caches and build folders; .venv and runs stay'
	@echo
	@echo 'PYTHON=python3.12 chooses the Python that .venv is made with.'
	@echo 'A torch that is already in .venv is kept; without one, torch comes from the package index.'

install: $(STAMP)

demo: $(STAMP)
	$(BIN)/omni reproduce demo --out runs/demo

# Tests start many processes, which are quicker with compiled modules than without.
test: lint
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -q --numprocesses auto --dist loadfile

bench: $(STAMP)
	$(BIN)/python -m benchmarks

# As in make matrix WITH='--python ~/3.13/bin/python --torch-index URL'.
matrix: $(STAMP)
	$(BIN)/python -m benchmarks.compatibility $(WITH)

docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	    --constraint .venv/constraints.txt --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict
	@echo 'The start page is build/site/index.html.'

lint: $(STAMP)
	$(BIN)/python -m ruff check --quiet .
	$(BIN)/python -m mypy src

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache
	find src tests benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

# pip would compile all modules of all packages, for longer than the rest of the installation takes;
# the import at the end compiles what is used.
# The constraint on torch gives way to the torch that is there, so that pip never replaces it, and
# that on torchvision to the one that fits it.
$(STAMP): pyproject.toml constraints.txt | $(BIN)/python
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null || \
	    { echo 'There is no pip in .venv: remove .venv and run make again.' >&2; exit 1; }
	@torch=$$($(BIN)/python -c 'import importlib.metadata as m; print(m.version("torch"))' 2>/dev/null); \
	if [ -n "$$torch" ]; then \
	    echo "Installing omnitraining in .venv, with the torch $$torch that is there."; \
	    grep -vE '^torch(vision)?==' constraints.txt > .venv/constraints.txt; \
	    echo "torch===$$torch" >> .venv/constraints.txt; \
	else \
	    echo 'Installing omnitraining and torch in .venv: minutes, most of them for torch.'; \
	    cp constraints.txt .venv/constraints.txt; \
	fi
	@$(BIN)/python -m pip install --no-compile --quiet --disable-pip-version-check \
	    --constraint .venv/constraints.txt --editable '.[dev]'
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -c 'from omnitraining import *'
	@touch $@

$(BIN)/python:
	@command -v '$(PYTHON)' >/dev/null || \
	    { echo 'No $(PYTHON) here: name a Python 3.10 or newer, as in make PYTHON=python3.12.' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	    { echo '$(PYTHON) is too old: name a Python 3.10 or newer, as in make PYTHON=python3.12.' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	    { echo '$(PYTHON) cannot make virtual environments: install its venv module (Debian: apt install python3-venv).' >&2; exit 1; }
	@$(PYTHON) -m venv .venv
