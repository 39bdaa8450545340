# A fresh machine needs only python3 (3.10 or newer) and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
LAYER := $(VENV)/stable-pretraining
CONSTRAINTS ?= constraints.txt
TESTS ?=  # folders or files; default: all
WORKERS ?= auto
# A file stays on one worker, together with the fixtures that its tests share.
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist loadscope $(TESTS)

.PHONY: demo test quick lint bench reproduce dist docs docs-serve clean

SCALE ?= cpu-10

demo: $(VENV)/.installed  ## train the three methods on the embedded data, print the table, draw the figure
	$(BIN)/python -m examples.demo

test: $(VENV)/.installed $(if $(strip $(TESTS)),,$(VENV)/.stable-pretraining)  ## the whole test suite, or TESTS
	$(PYTEST)

quick: $(VENV)/.installed  ## the fast tests, without multi-process, fault and site tests
	$(PYTEST) -m "not (slow or ddp or site)"

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.bench  ## the CPU benchmark table, in benchmarks/results
	$(BIN)/python -m benchmarks.cpu

reproduce: $(VENV)/.installed  ## the paper's tables at SCALE (full, gpu-short, cpu-10, textures); resumes where it stopped
	$(BIN)/python -m examples.reproduce $(SCALE)

dist: $(VENV)/.installed  ## build the sdist and the wheel, and check them
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*

clean:
	rm -rf $(VENV) dist runs site .mypy_cache .pytest_cache .ruff_cache .hypothesis

# Stamps are written only after every install step has succeeded.
$(VENV)/.installed: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable ".[dev]"
	touch $@

# stable-pretraining changes every Lightning trainer in its environment, so it gets its own environment on top of .venv.
$(VENV)/.stable-pretraining: $(VENV)/.installed
	$(BIN)/python -m venv --without-pip $(LAYER)
	$(BIN)/python -c 'import sysconfig as s; print("import site; site.addsitedir(%r)" % s.get_path("purelib"))' \
		> $$($(LAYER)/bin/python -c 'import sysconfig as s; print(s.get_path("purelib"))')/below.pth
	$(BIN)/python -m pip --python $(LAYER)/bin/python install --quiet --constraint $(CONSTRAINTS) \
		"symplectic-jepa[stable-pretraining]"
	touch $@

$(VENV)/.bench: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable ".[bench]"
	touch $@

docs: $(VENV)/.installed  ## build site/; fails on errors in code blocks, broken links or references
	$(BIN)/python -m mkdocs build --strict  # not --quiet, which would hide warnings from --strict

docs-serve: $(VENV)/.installed  ## serve the site on localhost
	$(BIN)/python -m mkdocs serve
