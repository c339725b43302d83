# One vocabulary for person, hook and CI. Every target sets up .venv by itself when needed.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test check bench clean

setup: .venv/.installed

.venv/.installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet 'torch>=2.13,<2.14'
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

# Triton's client wants other versions of packages than ours: it has an environment of its own.
.venv-triton/.installed: Makefile
	$(PYTHON) -m venv .venv-triton
	.venv-triton/bin/pip install --quiet 'tritonclient[grpc,http]==2.73.0'
	touch $@

demo: setup
	$(BIN)/everfit demo

test: setup .venv-triton/.installed
	EVERFIT_TRITON_PYTHON=$(CURDIR)/.venv-triton/bin/python $(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup
	for program in benchmarks/*.py; do PYTHONPATH=. $(BIN)/python $$program || exit 1; done

clean:
	rm -rf .venv .venv-triton .mypy_cache .pytest_cache .ruff_cache
