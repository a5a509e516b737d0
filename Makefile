# Two commands do everything, from a fresh machine: `make course` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
SERVE  ?= 1
PORT   ?= 8000
BIN    := $(VENV)/bin

.PHONY: help course test setup models verify site serve lint bench clean

help: ## what each target does
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

course: models verify site ## set up, get the models, verify, build the site and serve it (SERVE=0: do not serve)
ifneq ($(SERVE),0)
	$(MAKE) serve
endif

test: setup ## set up and run every test, the chapters' snippets among them
	$(BIN)/python -m pytest

setup: $(BIN)/.ready ## make .venv with everything in it

$(BIN)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean: ## remove what was built (the models stay in their store)
	rm -rf $(VENV) site docs/notebooks build dist
