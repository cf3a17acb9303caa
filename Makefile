# Everything runs in `.venv` beside this file. Each target does all of its own set-up; a second call finds it done.
#   PYTHON=python3.12   the Python to make it with, where `python3` will not do
PYTHON ?=
BIN := .venv/bin
SETUP := sh requirements/venv.sh
LIST_WARNINGS := -W always
WRONG = $(shell $(SETUP) check "$(PYTHON)")

.PHONY: demo test lint docs format newest lowest lock python venv clean

demo: venv
	$(BIN)/python -m ipo datasets prepare looks
	@if [ -f runs/demo/run.json ]; then \
		echo "runs/demo exists: going on with it (remove the folder to start anew)"; \
		$(BIN)/python -m ipo optimize --resume runs/demo; \
	else \
		$(BIN)/python -m ipo optimize --dataset looks --domains drawing --target looks@photo --classes all \
			--llm local-llama --offline --captioner describe --steps 8 --out runs/demo; \
	fi

test: venv
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

lint: venv
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

# The site of the pages in docs/, into build/site. It asks no other host for anything.
docs: venv
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict -f docs/site/mkdocs.yml

format: venv
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

# The tests with the newest libraries that the wheel's ranges allow. Warnings (deprecations mostly) are listed.
newest: python
	@$(SETUP) newest .venv-newest "$(PYTHON)"
	OMP_NUM_THREADS=1 .venv-newest/bin/python -m pytest -n 2 --dist worksteal $(LIST_WARNINGS)

# The tests with the oldest direct dependencies that the wheel's ranges allow.
lowest: python
	@$(SETUP) lowest .venv-lowest "$(PYTHON)"
	OMP_NUM_THREADS=1 .venv-lowest/bin/python -m pytest -n 2 --dist worksteal $(LIST_WARNINGS)

# Renew the lock: the newest versions that the ranges of pyproject.toml and requirements/hold.txt allow.
lock: venv
	$(BIN)/uv pip compile --quiet --system-certs --upgrade --universal --python-version 3.11 --generate-hashes --extra dev --extra docs \
		--constraint requirements/hold.txt --custom-compile-command "make lock" \
		--output-file requirements/lock.txt pyproject.toml

venv: python
	@$(SETUP) locked .venv "$(PYTHON)"

python:
	@: $(if $(WRONG),$(error $(WRONG)))

clean:
	rm -rf .venv .venv-newest .venv-lowest build/site runs .mypy_cache .ruff_cache .pytest_cache
