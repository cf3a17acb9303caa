# Everything runs in `.venv` beside this file. Each target does all of its own set-up; a second call finds it done.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test lint format clean

demo: $(READY)
	$(BIN)/python -m ipo datasets prepare stamps
	@if [ -f runs/demo/run.json ]; then \
		echo "runs/demo exists: going on with it (remove the folder to start anew)"; \
		$(BIN)/python -m ipo optimize --resume runs/demo; \
	else \
		$(BIN)/python -m ipo optimize --dataset stamps --classes base --llm local-llama --offline --captioner describe \
			--steps 8 --out runs/demo; \
	fi
	$(BIN)/python -m ipo history runs/demo --top 10

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

lint: $(READY)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

format: $(READY)
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

$(READY): pyproject.toml requirements-offline.txt
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			apt-get update && apt-get install -y --no-install-recommends python3-venv; \
		else \
			echo "make: Python's venv module is missing. Install it (Debian: sudo apt-get install python3-venv)" >&2; exit 1; \
		fi; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-offline.txt
	@touch $@

clean:
	rm -rf .venv runs .mypy_cache .ruff_cache .pytest_cache
