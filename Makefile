# make demo   everything set up, then a real kernel freezes without the IO_FLUSHER state and lives with it
# make test   everything set up, then every test, those in virtual machines included

VENV := .venv
PYTHON := $(VENV)/bin/python

.PHONY: test lint
test: lint
	$(PYTHON) -m pytest

lint:
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
