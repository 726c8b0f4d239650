# Two commands set everything up on a machine with Python >= 3.11, pip and make:
#   make demo    run a real campaign and show where its results are
#   make test    lint, type-check, test
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo_output
# Small networks run fastest on one thread a process; two threads a core cost tenfold.
export OMP_NUM_THREADS := 1
export MKL_NUM_THREADS := 1

.PHONY: demo test lint install format

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "bo-surrogates needs Python 3.11 or newer; this is $$($(PYTHON) --version). Try: make PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

install: $(VENV)/.installed-dev

# Interrupted with Ctrl-C (or killed), it continues where it stopped.
demo: $(VENV)/.installed
	@mkdir -p $(DEMO)
	@if [ -f $(DEMO)/pokebnn.db ]; then \
	  $(BIN)/bo-surrogates resume $(DEMO)/pokebnn.db; \
	else \
	  $(BIN)/bo-surrogates run examples/pokebnn.toml --database $(DEMO)/pokebnn.db; \
	fi
	@$(BIN)/bo-surrogates plot $(DEMO)/pokebnn.db --output $(DEMO)/pokebnn.png
	@echo
	@echo "Results:  $(DEMO)/pokebnn.db (every trial), $(DEMO)/pokebnn.png (the Pareto front)"
	@echo "Look:     $(BIN)/bo-surrogates status $(DEMO)/pokebnn.db"
	@echo "Continue: $(BIN)/bo-surrogates resume $(DEMO)/pokebnn.db --trials 10"

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: lint
	$(BIN)/pytest -n auto --dist worksteal

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
