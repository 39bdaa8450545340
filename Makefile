# A fresh machine needs python3 (3.10 or newer) and make, nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
LAYER := $(VENV)/stable-pretraining
CONSTRAINTS ?= constraints.txt
TESTS ?=  # folders or files; all by default
WORKERS ?= auto
# A file stays on one worker, and with it what its tests share.
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist loadscope $(TESTS)

.PHONY: demo test quick lint bench reproduce dist docs docs-serve clean

SCALE ?= cpu-10

demo: $(VENV)/.installed  ## train the three methods on the embedded data, print the table, draw the figure
	$(BIN)/python -m examples.demo

test: $(VENV)/.installed $(if $(strip $(TESTS)),,$(VENV)/.stable-pretraining)  ## the whole test suite, or TESTS
	$(PYTEST)

quick: $(VENV)/.installed  ## the tests that take seconds, on one process and without the site
	$(PYTEST) -m "not (slow or ddp or site)"

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.bench  ## the CPU's speed table, in benchmarks/results
	$(BIN)/python -m benchmarks.cpu

reproduce: $(VENV)/.installed  ## the paper's tables at SCALE (full, gpu-short, cpu-10, textures); goes on where it was stopped
	$(BIN)/python -m examples.reproduce $(SCALE)

dist: $(VENV)/.installed  ## the sdist and the wheel, checked as an index would
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*

clean:
	rm -rf $(VENV) dist runs site .mypy_cache .pytest_cache .ruff_cache .hypothesis

# The stamps are written only when every install step has succeeded.
$(VENV)/.installed: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable ".[dev]"
	touch $@

# stable-pretraining changes every Lightning trainer of its environment: it has a layer of its own, over the other one.
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

docs: $(VENV)/.installed  ## the site, in site/; a page that raises, a broken link or reference fails
	$(BIN)/python -m mkdocs build --strict  # not --quiet, with which no warning is counted

docs-serve: $(VENV)/.installed  ## the site on localhost
	$(BIN)/python -m mkdocs serve
