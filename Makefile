# Every target makes .venv by itself; `make demo` and `make test` need nothing prepared.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help demo test check evidence nightly bench schemas clean

help:  ## What there is to make
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(READY)  ## Take a real public cohort through the whole way, into demo/
	@# 5 is a verdict, not a breakdown: the cohort was made and judged, and a gate failed.
	$(BIN)/synthehr demo --out demo || [ $$? -eq 5 ]

test: $(READY)  ## Run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

check: $(READY)  ## Lint, types, direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

evidence: $(READY)  ## Run the slow tests, and measure how often intervals hold
	$(BIN)/python -m pytest -m slow
	OMP_NUM_THREADS=1 $(BIN)/python evaluation/bench/coverage.py

nightly: $(READY)  ## Attack fits of our own models with shadow fits, for hours; finished fits are kept
	OMP_NUM_THREADS=1 $(BIN)/python evaluation/bench/shadow.py --patients 2000 --attacked 200 --fits 256
	OMP_NUM_THREADS=1 $(BIN)/python evaluation/bench/shadow.py --patients 2000 --attacked 200 --fits 64 --model dp-ctgan

bench: $(READY)  ## Fit and score our models and the peers' on real tables; finished cells are kept
	$(BIN)/python evaluation/bench/peers.py --envs .bench $(if $(DATA),--data $(DATA))

schemas: $(READY)  ## Write the JSON Schemas of all files anew
	$(BIN)/python -m synthehr.config_schemas schemas/config

clean:  ## Remove what make made
	rm -rf $(VENV) demo
