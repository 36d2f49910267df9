# Every target sets .venv up first (at once when it is there already). `make` alone prints what there is.
MAKEFLAGS += --no-print-directory
BIN := .venv/bin
-include .env
export $(shell sed -n 's/^\([A-Za-z_][A-Za-z0-9_]*\)=.*/\1/p' .env 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow check format coverage bench clean lock

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

setup: ## build .venv from requirements.lock, without root
	@scripts/setup.sh

demo: setup ## close the loop once: demonstrate, train, serve in ROS 2, roll out, label, train again
	@$(BIN)/tandem demo

test: setup ## all tests but the slow ones
	@$(BIN)/python -m pytest

test-slow: setup ## the tests that take minutes
	@$(BIN)/python -m pytest -m slow

check: setup ## formatting, lint and types
	@$(BIN)/ruff format --check
	@$(BIN)/ruff check
	@$(BIN)/mypy

format: setup ## format the code and mend what lint can mend
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

coverage: setup ## tests with a coverage report in htmlcov/
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage html --quiet
	@$(BIN)/coverage report --skip-covered --sort=cover

bench: setup ## measure what is promised, against the targets
	@$(BIN)/tandem bench loop

lock: setup ## resolve pyproject.toml anew into requirements.lock
	@printf '%s\n' '# Every dependency, pinned (make lock rewrites this file from pyproject.toml).' > requirements.lock.new
	@$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.12 --upgrade --quiet \
		--no-emit-index-url --no-emit-find-links --no-annotate --no-header >> requirements.lock.new \
		|| { rm -f requirements.lock.new; exit 1; }
	@mv requirements.lock.new requirements.lock
	@scripts/setup.sh

clean: ## remove caches and build folders; keeps .venv, outputs/ and every recorded store
	@find . \( -path ./.venv -o -path ./.git -o -path ./outputs -o -name '*.zarr' \) -prune -o \
		-type d \( -name __pycache__ -o -name '*.egg-info' \) -print0 | xargs -0 rm -rf --
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis htmlcov .coverage .coverage.* build dist multirun
	@rm -rf ros2_ws/build ros2_ws/install ros2_ws/log
	@echo "kept: .venv (rm -rf .venv), outputs/ and *.zarr (what you recorded and trained; remove them yourself)"
