# make demo   recordings -> teacher -> student -> WAV and a page to look at and listen to (about 20 minutes on two cores)
# make test   ruff, mypy and the test-suite (at most 12 minutes on two cores)
# Both make their own virtual environment first. PYTHON=python3.12 chooses the interpreter, VENV=dir the place.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.10 || command -v python3)
VENV ?= .venv
BIN = $(VENV)/bin
OUT ?= runs/demo

.PHONY: demo test test-all lint format environment clean

environment: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	@echo "Environment: $(VENV), from $(PYTHON). Installing (torch is large: a few minutes the first time)."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	@touch $@

demo: environment
	$(BIN)/python scripts/demo.py --out "$(OUT)"

lint: environment
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -m "not slow"

test-all: lint
	$(BIN)/python -m pytest

format: environment
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build dist *.egg-info
