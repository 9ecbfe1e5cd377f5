# make demo   sets up and runs the whole pipeline on bundled synthetic clips
# make test   sets up and runs the tests
# make test-fast   those that take under two minutes together
# make lint   style and types
# make docs   builds the site into docs/_build/html and runs its examples
# make figures   writes the documents' tables and pictures of measured figures anew
# make release-check   builds sdist and wheel, and tests the wheel beside an older torch
# make cuda-check   compiles the CUDA kernels for every architecture, where nvcc exists
# make clean  removes what the others made

PYTHON ?= python3
VENV ?= .venv
OUT ?= demo
# Without a GPU to run them on, a developer's checkout need not compile the CUDA kernels.
SPN_BUILD ?= $(if $(shell command -v nvidia-smi),auto,cpu)

BIN := $(VENV)/bin
SOURCES := $(shell find csrc -type f) setup.py build_kernels.py pyproject.toml

.PHONY: demo test test-fast lint docs figures release-check cuda-check clean

demo: $(VENV)/.built
	$(BIN)/python -m vos_pipeline demo --out $(OUT) --overwrite

# One thread a worker: the tests are many and small.
test: $(VENV)/.built
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

test-fast: $(VENV)/.built
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m "not release and not slow"

lint: $(VENV)/.built
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(shell find csrc benchmarks tests -name '*.cpp' -o -name '*.h' -o -name '*.cu')

# A warning is an error: a dead link or a wrong example must not stay. One thread: the gallery's nets are so small that
# threads mostly wait for one another, beside other work for minutes. A page shows how a progress bar begins and ends.
docs: export OMP_NUM_THREADS = 1
docs: export TQDM_MININTERVAL = 1e9
docs: $(VENV)/.built
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	$(BIN)/python -m sphinx -W --keep-going -q -b doctest -D plot_gallery=0 docs docs/_build/doctest

# Those that need nothing but benchmarks/results.
figures: $(VENV)/.built
	for name in architecture benchmarks refiner_table temporal_filters readme; do $(BIN)/python -m docs.figures.$$name || exit; done

release-check: $(VENV)/.built
	$(BIN)/python -m pytest -m release -s tests/release

cuda-check: $(VENV)/.built
	$(BIN)/python -m benchmarks.cuda.check

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --upgrade pip
	$(BIN)/python -m pip install "setuptools>=77" wheel ninja torch torchvision
	SPN_BUILD=none $(BIN)/python -m pip install --no-build-isolation --editable ".[all]"
	touch $@

$(VENV)/.built: $(VENV)/.installed $(SOURCES)
	PATH="$(abspath $(BIN)):$$PATH" SPN_BUILD=$(SPN_BUILD) $(BIN)/python setup.py build_ext --inplace
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info spn/*.so spn/*.left_out docs/_build docs/auto_gallery $(OUT)
