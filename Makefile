# make demo   train a model on real text, let it write, and see that its recurrent form is the same function
# make test   the tests (under ten minutes on two cores)
# make bench  the native engine beside transformers, llama.cpp and mambapy, where they are installed (an hour)
# Both make .venv and install the package first; nothing else is needed.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: demo test test-all chromium check sanitize bench clean

demo: $(STAMP)
	$(BIN)/runnel demo

test: $(STAMP) chromium
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m "not thorough"

test-all: $(STAMP) chromium
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2

# The page of the server is tested in Debian's chromium. Where that cannot be had, these tests are skipped.
chromium:
	@command -v chromium > /dev/null || { \
	    command -v apt-get > /dev/null && [ "$$(id -u)" = 0 ] && apt-get -qq update \
	    && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends chromium > /dev/null; } \
	|| echo "chromium is missing and cannot be installed here: the tests of the page are skipped"

check: $(STAMP)
	$(BIN)/pip install -q -c constraints.txt -e '.[test,check]'
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The tests of the kernels once more, by a build that finds bad addresses and undefined behaviour.
SANITIZED := build/sanitized
sanitize: $(STAMP)
	$(BIN)/pip install -q -c constraints.txt nanobind
	cmake -S src/runnel/native/cpp -B $(SANITIZED) -DRUNNEL_SANITIZE=ON -DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python
	cmake --build $(SANITIZED)
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libubsan.so)" \
	ASAN_OPTIONS=detect_leaks=0 RUNNEL_NATIVE=$$(ls $(SANITIZED)/_kernels*.so) OMP_NUM_THREADS=1 \
	$(BIN)/python -m pytest -q tests/native -m "not thorough" --ignore tests/native/test_left_out.py

RESULTS := results
bench: $(STAMP)
	for shape in mamba-130m llama-135m; do $(BIN)/python benchmarks/decode.py --shape $$shape --json $(RESULTS)/$$shape.json; done
	$(BIN)/python benchmarks/train.py --json $(RESULTS)/train.json
	$(BIN)/python benchmarks/train.py --lengths 8192 --mixers attention,mamba --memory --json $(RESULTS)/memory.json
	$(BIN)/python benchmarks/length.py --json $(RESULTS)/length.json --plot docs/results/length.png
	$(BIN)/python benchmarks/report.py $(RESULTS)/*.json > docs/results/native.md

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt torch==2.13.0
	PIP_CONSTRAINT=constraints.txt $(BIN)/pip install -q -e '.[test]'
	touch $@

clean:
	rm -rf .venv build src/*.egg-info
	git clean -fdXq src/runnel/native
