# make demo   train a model on real text, let it write, and see that its recurrent form is the same function
# make test   the tests (under ten minutes on two cores)
# Both make .venv and install the package first; nothing else is needed.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: demo test test-all check clean

demo: $(STAMP)
	$(BIN)/runnel demo

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m "not thorough"

test-all: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2

check: $(STAMP)
	$(BIN)/pip install -q -c constraints.txt -e '.[test,check]'
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt torch==2.13.0
	PIP_CONSTRAINT=constraints.txt $(BIN)/pip install -q -e '.[test]'
	touch $@

clean:
	rm -rf .venv build src/*.egg-info
	git clean -fdXq src/runnel/native
