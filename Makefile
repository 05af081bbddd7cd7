# `make book` and `make test` need nothing but Python 3.11+ (with its venv module) and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

# Two spinning OpenMP threads beside another process cost a factor of ten.
OMP_WAIT_POLICY ?= passive
export OMP_WAIT_POLICY

.DEFAULT_GOAL := help
.PHONY: help book smoke pdf test torture bench lint sync clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

book: $(VENV)/installed ## run every chapter (profile demo) and build the HTML
	$(BIN)/pacx run --profile demo
	$(BIN)/pacx book --profile demo

smoke: $(VENV)/installed ## the same in minutes, too small for its numbers to mean anything
	$(BIN)/pacx run --profile smoke
	$(BIN)/pacx book --profile smoke

CHROMIUM ?= $(firstword $(foreach b,chromium chromium-browser google-chrome,$(shell command -v $(b))))
SINGLE := runs/demo/single/_build/singlehtml

pdf: book ## the book without the library's reference in one file, runs/demo/html/book.pdf
	@test -n "$(CHROMIUM)" || { echo "Printing needs Chromium. Install it, or: make pdf CHROMIUM=PATH"; exit 1; }
	rm -rf runs/demo/single && mkdir runs/demo/single
	grep -v book/api _toc.yml > runs/demo/single/_toc.yml
	$(BIN)/jupyter-book build runs/demo/book --path-output runs/demo/single --builder singlehtml \
	  --toc $(CURDIR)/runs/demo/single/_toc.yml
	mv $(SINGLE)/book/index.html $(SINGLE) # its links start here
	$(CHROMIUM) --headless --no-sandbox --disable-gpu --disable-background-networking \
	  --virtual-time-budget=120000 --no-pdf-header-footer \
	  --print-to-pdf=$(SINGLE)/book.pdf file://$(CURDIR)/$(SINGLE)/index.html
	mv $(SINGLE)/book.pdf runs/demo/html
	rm -rf runs/demo/single

test: $(VENV)/installed-test ## all tests, two at a time; the slow files come first
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

torture: $(VENV)/installed-test ## kill trainings, caches, pairing, chapters and book a hundred times
	PACX_KILLS=100 $(BIN)/python -m pytest -q tests/robustness/test_kill.py

# Checkout of facebookresearch/mae, where there is one, for the comparison of the MAE step.
MAE_REFERENCE ?=

bench: $(VENV)/installed-test ## measure speed and memory side by side, for the book's appendix
	$(BIN)/python benchmarks/probes.py --json book/benchmarks/probes.json
	$(BIN)/python benchmarks/mae_step.py --compile \
	  $(if $(MAE_REFERENCE),--reference $(MAE_REFERENCE)) --json book/benchmarks/mae_step.json
	$(BIN)/python benchmarks/distill_step.py --json book/benchmarks/distill_step.json
	$(BIN)/python benchmarks/input.py --json book/benchmarks/input.json
	$(BIN)/python benchmarks/latency.py --json book/benchmarks/latency.json
	$(BIN)/python benchmarks/predict.py --json book/benchmarks/predict.json
	$(BIN)/python benchmarks/rehearsal.py --json book/benchmarks/rehearsal.json
	$(BIN)/python benchmarks/scale.py --json book/benchmarks/scale.json

lint: $(VENV)/installed-test ## style, import order, notebooks in step with their sources
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/test_house.py

sync: $(VENV)/installed-test ## write notebooks/*.ipynb from notebooks/*.py, without outputs
	$(BIN)/python -m pacx.book.colab

clean: ## remove the virtual environment, the runs and every cache
	rm -rf $(VENV) runs build dist *.egg-info
	rm -rf .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is older than Python 3.11. Choose another: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade pip

$(VENV)/installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install --quiet --constraint constraints.txt --editable '.[book,onnx]'
	@touch $@

$(VENV)/installed-test: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install --quiet --constraint constraints.txt --editable '.[test]'
	@touch $@ $(VENV)/installed
