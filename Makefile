# Every target sets up what it needs in .venv/ first.
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: setup demo live test prove bench check clean

setup: $(STAMP)

$(STAMP): constraints.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "K2 needs Python 3.11 or 3.12: $(PYTHON) was not found; set PYTHON=…" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --require-hashes -r constraints.txt
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	@echo "compiling the core (once)"; $(BIN)/python -m dataflows.precompile
	@touch $@

demo: setup
	$(BIN)/k2 demo $(if $(ONCE),--once)

live: setup
	$(BIN)/k2 live

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check
	$(BIN)/python -m pytest -m "not prove" -n 3 --dist loadfile --no-loadscope-reorder

prove: setup
	$(BIN)/python -m pytest -m prove -v -n 2 --dist worksteal

bench: setup
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) .k2 .cache
