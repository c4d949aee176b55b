# `make demo` and `make test` set up what they need; nothing but Python >= 3.11 with venv and pip is assumed.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.complete

.PHONY: demo test venv lint bench clean

demo: $(STAMP)
	$(BIN)/python run_flowgraph.py run configs/main.yaml

test: $(STAMP)
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Semflow needs Python 3.11 or newer, not " + sys.version.split()[0])'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv build *.egg-info
