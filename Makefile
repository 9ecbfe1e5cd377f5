# make demo            set up .venv and run the whole pipeline on bundled synthetic clips
# make test            set up .venv and run the tests
# make test-fast       run only the fast tests, under two minutes in total
# make lint            check style and types
# make docs            build the site into docs/_build/html and run its examples
# make figures         regenerate the tables and figures that need only benchmarks/results, and the architecture figure
# make release-check   build the sdist and the wheel, and test the wheel with an older torch
# make cuda-check      compile the CUDA kernels for all architectures or for ARCHITECTURES="75 90"; needs nvcc
# make arm-check       compile the CPU kernels for 64-bit Arm and run them; on other machines, under emulation
# make clean           remove everything that the other targets created

PYTHON ?= python3
VENV ?= .venv
OUT ?= demo
# Without a GPU, the CUDA kernels could not run, so by default they are not compiled.
SPN_BUILD ?= $(if $(shell command -v nvidia-smi),auto,cpu)

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip
LOG := $(VENV)/log.txt
# The sdist has no workflows.
WORKFLOWS := $(wildcard .github/workflows/*.yml)
SCHEMA := $(BIN)/check-jsonschema -q --builtin-schema vendor.github-
SOURCES := $(shell find csrc -type f) setup.py build_kernels.py pyproject.toml

# $(call quietly,MESSAGE,COMMAND): print only the message; if the command fails, also print the end of its output.
quietly = @echo "$(1)"; \
	{ $(2); } >>$(LOG) 2>&1 </dev/null || { tail -n 30 $(LOG); echo "Failed: $(1). Full log: $(LOG)"; exit 1; } >&2

.PHONY: demo test test-fast lint docs figures release-check cuda-check arm-check clean

demo: $(VENV)/.built  # needs only the extra "vos"
	$(BIN)/python -m vos_pipeline demo --out $(OUT) --overwrite

# One thread per worker, because the tests are many and small. Tests have no time limit, because a slow machine would
# exceed it; faulthandler_timeout makes the log show where a test hangs. With worksteal, workers start on neighbouring
# tests, which share fixtures, and rebalance when one is idle.
test: $(VENV)/.installed-all
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal -o faulthandler_timeout=600

test-fast: $(VENV)/.installed-all
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m "not release and not arm and not slow"

lint: $(VENV)/.installed-all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(shell find csrc benchmarks tests -name '*.cpp' -o -name '*.h' -o -name '*.cu')
	$(if $(WORKFLOWS),$(SCHEMA)workflows $(WORKFLOWS))
	$(if $(WORKFLOWS),$(SCHEMA)issue-forms $(wildcard .github/ISSUE_TEMPLATE/*_*.yml))
	$(if $(WORKFLOWS),$(SCHEMA)issue-config .github/ISSUE_TEMPLATE/config.yml)
	$(if $(WORKFLOWS),PATH="$(BIN):$$PATH"; if command -v actionlint >/dev/null; then actionlint; fi)

# -W turns warnings into errors, so that dead links and wrong examples are found. OMP_NUM_THREADS=1: the networks of the
# gallery are so small that several threads mostly wait for each other, for minutes on a busy machine. TQDM_MININTERVAL:
# a page shows only the start and the end of a progress bar.
docs: export OMP_NUM_THREADS = 1
docs: export TQDM_MININTERVAL = 1e9
docs: $(VENV)/.installed-all
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	$(BIN)/python -m sphinx -W --keep-going -q -b doctest -D plot_gallery=0 docs docs/_build/doctest

# The tables and figures that need only benchmarks/results.
figures: $(VENV)/.installed-all
	for name in architecture benchmarks refiner_table temporal_filters deployment readme; do $(BIN)/python -m docs.figures.$$name || exit; done

release-check: $(VENV)/.installed-all
	$(BIN)/python -m pytest -m release -s tests/release

cuda-check: $(VENV)/.installed-all
	$(BIN)/python -m benchmarks.cuda.check $(if $(ARCHITECTURES),--architectures $(ARCHITECTURES))

arm-check: $(VENV)/.installed-all
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m arm -s tests/arm

# The steps .installed-vos, .built, .installed-all run in this order, also with make -j. Each file marks a finished step.
# .unfinished marks an environment that make itself created and whose first step has not finished. Make recreates it.
$(VENV)/.installed-vos: pyproject.toml
	@if [ -e $(VENV)/.unfinished ]; then rm -rf $(VENV); fi
	@if [ ! -e $(VENV) ]; then mkdir -p $(VENV) && touch $(VENV)/.unfinished; fi
	$(call quietly,Creating $(VENV),$(PYTHON) -m venv $(VENV))
	$(call quietly,Installing PyTorch and the dependencies of the pipeline (several gigabytes; takes minutes), \
		$(PIP) install --upgrade pip "setuptools>=77" wheel ninja && \
		SPN_BUILD=none $(PIP) install --no-compile --no-build-isolation --editable ".[vos]" torch torchvision)
	@rm -f $(VENV)/.unfinished
	@touch $@

$(VENV)/.built: $(VENV)/.installed-vos $(SOURCES)
	$(call quietly,Compiling the kernels (a minute or two), \
		PATH="$(abspath $(BIN)):$$PATH" SPN_BUILD=$(SPN_BUILD) $(BIN)/python setup.py build_ext --inplace)
	@touch $@

# This adds only the other extras: the package is already installed, and reinstalling it would remove the kernels.
$(VENV)/.installed-all: $(VENV)/.installed-vos | $(VENV)/.built
	$(call quietly,Installing the dependencies of tests and style checks and documentation, \
		$(PIP) install --no-compile "spatial-propagation[all]")
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info spn/*.so spn/*.left_out docs/_build docs/auto_gallery $(OUT)
