# make demo   set up, then distil a digit segmentation student and print what it gained (the main job)
# make production-test   set up, then prove the text-to-image pipeline with a tiny teacher
# make test   set up, then run the default tests
STACK ?= onedl
VENV ?= $(if $(filter openmmlab,$(STACK)),.venv-openmmlab,.venv)
PY := $(VENV)/bin/python

.DEFAULT_GOAL := help
.PHONY: help env demo production-test test test-slow check format clean

help:
	@sed -n 's/^# //p' Makefile
	@echo "make env    set up $(VENV) alone (STACK=onedl, the default, or STACK=openmmlab)"
	@echo "make test-slow, make check (format, lint, types), make format, make clean"

env:
	@tools/setup_env.sh $(STACK) $(VENV)

demo: env
	@$(PY) tools/demo.py

production-test: env
	@$(PY) tools/production_test.py

test: env
	@$(PY) -m pytest -m "not slow"

test-slow: env
	@$(PY) -m pytest -m slow

check: env
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/mypy

format: env
	@$(VENV)/bin/ruff format .
	@$(VENV)/bin/ruff check --fix .

clean:
	rm -rf work_dirs/quickstart .pytest_cache .mypy_cache .ruff_cache
