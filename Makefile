# make demo   sets up and runs the whole pipeline on bundled synthetic clips
# make test   sets up and runs the tests
# make test-fast   those that take under two minutes together
# make lint   style and types
# make docs   builds the site into docs/_build/html and runs its examples
# make figures   writes the documents' tables and pictures of measured figures anew
# make release-check   builds sdist and wheel, and tests the wheel beside an older torch
# make cuda-check   compiles the CUDA kernels for every architecture, or those of ARCHITECTURES="75 90", where nvcc exists
# make arm-check   compiles the CPU kernels for 64-bit Arm and runs them, under emulation on other machines
# make clean  removes what the others made

PYTHON ?= python3
VENV ?= .venv
OUT ?= demo
# Without a GPU to run them on, a developer's checkout need not compile the CUDA kernels.
SPN_BUILD ?= $(if $(shell command -v nvidia-smi),auto,cpu)

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip
LOG := $(VENV)/log.txt
# None in the sdist.
WORKFLOWS := $(wildcard .github/workflows/*.yml)
SCHEMA := $(BIN)/check-jsonschema -q --builtin-schema vendor.github-
SOURCES := $(shell find csrc -type f) setup.py build_kernels.py pyproject.toml

# $(call quietly,MESSAGE,COMMAND): the message alone, and where the command fails also how what it said ends.
quietly = @echo "$(1)"; \
	{ $(2); } >>$(LOG) 2>&1 </dev/null || { tail -n 30 $(LOG); echo "This failed: $(1). The whole log: $(LOG)"; exit 1; } >&2

.PHONY: demo test test-fast lint docs figures release-check cuda-check arm-check clean

demo: $(VENV)/.built  # with less than the others: the extra "vos" alone
	$(BIN)/python -m vos_pipeline demo --out $(OUT) --overwrite

# One thread a worker: the tests are many and small. Tests have no time limits, which a slow machine would exceed; of one
# that hangs, the log shows where. Workers take neighbouring tests, which share what is made for them, until one is idle.
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

# A warning is an error: a dead link or a wrong example must not stay. One thread: the gallery's nets are so small that
# threads mostly wait for one another, beside other work for minutes. A page shows how a progress bar begins and ends.
docs: export OMP_NUM_THREADS = 1
docs: export TQDM_MININTERVAL = 1e9
docs: $(VENV)/.installed-all
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	$(BIN)/python -m sphinx -W --keep-going -q -b doctest -D plot_gallery=0 docs docs/_build/doctest

# Those that need nothing but benchmarks/results.
figures: $(VENV)/.installed-all
	for name in architecture benchmarks refiner_table temporal_filters deployment readme; do $(BIN)/python -m docs.figures.$$name || exit; done

release-check: $(VENV)/.installed-all
	$(BIN)/python -m pytest -m release -s tests/release

cuda-check: $(VENV)/.installed-all
	$(BIN)/python -m benchmarks.cuda.check $(if $(ARCHITECTURES),--architectures $(ARCHITECTURES))

arm-check: $(VENV)/.installed-all
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m arm -s tests/arm

# One after the other, also with make -j: .installed-vos, .built, .installed-all. Each file is touched when its step is done.
# An environment that was left before its first step was done is made anew; .unfinished marks one that make itself began.
$(VENV)/.installed-vos: pyproject.toml
	@if [ -e $(VENV)/.unfinished ]; then rm -rf $(VENV); fi
	@if [ ! -e $(VENV) ]; then mkdir -p $(VENV) && touch $(VENV)/.unfinished; fi
	$(call quietly,Creating $(VENV),$(PYTHON) -m venv $(VENV))
	$(call quietly,Installing PyTorch and what the pipeline needs (some gigabytes: minutes), \
		$(PIP) install --upgrade pip "setuptools>=77" wheel ninja && \
		SPN_BUILD=none $(PIP) install --no-compile --no-build-isolation --editable ".[vos]" torch torchvision)
	@rm -f $(VENV)/.unfinished
	@touch $@

$(VENV)/.built: $(VENV)/.installed-vos $(SOURCES)
	$(call quietly,Compiling the kernels (a minute or two), \
		PATH="$(abspath $(BIN)):$$PATH" SPN_BUILD=$(SPN_BUILD) $(BIN)/python setup.py build_ext --inplace)
	@touch $@

# The package is there: only what its other extras name is added. Installing it anew would remove the kernels.
$(VENV)/.installed-all: $(VENV)/.installed-vos | $(VENV)/.built
	$(call quietly,Installing also what tests and style checks and documents need, \
		$(PIP) install --no-compile "spatial-propagation[all]")
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info spn/*.so spn/*.left_out docs/_build docs/auto_gallery $(OUT)
