# Two commands do everything, from a fresh machine: `make course` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
SERVE  ?= 1
PORT   ?= 8000
JOBS   ?= 2
BIN    := $(VENV)/bin

# Tests of numbers whose last digits a page shows: they run with kernels that all processors have in common.
DIGITS := tests/diagnosis
XDIST  := -n $(JOBS) --dist loadfile --no-loadscope-reorder --durations 12

# Modules are compiled when they are first imported, and kept: not anew by each of many processes.
unexport PYTHONDONTWRITEBYTECODE

# Behind `models` nothing asks the network again: what is not in the store by then is a miniature.
OFFLINE := HF_HUB_OFFLINE=1 PIP_NO_INDEX=1

.PHONY: help course test weekly setup models verify site pdf slides serve lint bench drift figures clean

help: ## what each target does
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

course: verify site ## set up, get the models, verify, build the site, serve it (SERVE=0: do not serve)
ifneq ($(SERVE),0)
	$(MAKE) serve
else
	@echo "The site is in site/; \`make serve\` shows it"
endif

test: setup ## set up and run every test, the chapters' snippets among them
	@status=0; \
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests $(DIGITS:%=--ignore=%) $(XDIST) || status=1; \
	OMP_NUM_THREADS=1 $(BIN)/python -m tools.portable -m pytest $(DIGITS) docs README.md $(XDIST) || status=1; \
	exit $$status

weekly: setup ## the tests that take long, each with a smaller one of its kind in `make test`
	@status=0; \
	export OMP_NUM_THREADS=1; \
	$(BIN)/python -m pytest -m weekly tests $(DIGITS:%=--ignore=%) $(XDIST) || status=1; \
	$(BIN)/python -m tools.portable -m pytest -m weekly $(DIGITS) $(XDIST) || status=1; \
	LLM_REBUILD_TOKENIZER_LINES=60000 $(BIN)/python -m pytest tests/tokenizers $(XDIST) || status=1; \
	exit $$status

setup: $(BIN)/.ready ## make .venv with everything in it

$(BIN)/.ready: pyproject.toml constraints.txt
	@echo "Installing into $(VENV): a minute or more, most of it PyTorch"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile \
		--constraint constraints.txt --editable '.[dev]'  # of its many files few are ever imported
	touch $@

models: setup ## bring the models to this disk, or say which miniature stands in
	$(BIN)/python -m tools.models

verify: models ## compare every checkpoint of the rebuilds with the official models
	$(OFFLINE) $(BIN)/llm-rebuild verify minilm --exact
	$(OFFLINE) $(BIN)/python -m tools.models --verify

site: setup ## build the site into site/
	$(OFFLINE) $(BIN)/python -m tools.site

pdf: site ## the course as one PDF, llm-rebuild.pdf
	$(BIN)/python -m tools.pdf

slides: setup ## the chapters as slides, a file each, into slides/
	$(BIN)/python -m tools.slides

serve: ## serve the built site on 127.0.0.1:$(PORT)
	@echo "The course is at http://127.0.0.1:$(PORT) (stop with Ctrl+C)"
	$(BIN)/python -m http.server $(PORT) --bind 127.0.0.1 --directory site

lint: setup ## ruff, mypy and codespell
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

bench: setup ## speed beside the official models and other tools, as a page (ONLY=forward: that; QUICK=1: in minutes)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m benchmarks $(ONLY) $(if $(QUICK),--quick)

drift: setup ## which checkpoints moved between releases of transformers and torch (downloads them)
	$(BIN)/python -m tools.drift

figures: setup ## draw the figures and write the reference pages and the Unicode tables of the page again
	$(BIN)/python -m tools.figures
	$(BIN)/python -m tools.page_tables
	$(BIN)/python -m tools.reference
	$(BIN)/python -m tools.course

clean: ## remove what was built (the models stay in their store)
	rm -rf $(VENV) site slides docs/notebooks docs/source build dist
