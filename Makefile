# Every target sets up what it needs: `make test` works on a bare checkout. The first run of each
# installs packages at the versions of constraints.txt into .venv; later runs start at once.

PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
SETTINGS := pyproject.toml constraints.txt

.PHONY: help demo test kernels lint format docs bench clean

help:
	@echo "make demo     explain a photograph and write demo/report.html"
	@echo "make test     lint, types, imports, tests"
	@echo "make kernels  the quick tests again, with the kernels of other processors"
	@echo "make lint     the same without the tests"
	@echo "make format   put the code in shape"
	@echo "make docs     build the documentation: site/index.html"
	@echo "make bench    measure speed and memory against the floor and against Captum"
	@echo "make clean    remove all that the others made, .venv included"

demo: .venv/.demo
	mkdir -p demo
	$(BIN)/whyglass explain --demo --report demo/report.html

# Two processes with one thread each beat one with two on these small networks.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

# What a float comes to depends on the kernel that a processor gets, and these have others.
QUICK := -q -m "not slow" tests/gradient tests/cam tests/coalition tests/propagation \
    tests/contract/test_axioms.py

kernels: .venv/.test
	for kernel in ATEN_CPU_CAPABILITY=default ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=SSE41; do \
	    echo "$$kernel"; \
	    env $$kernel OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --hypothesis-seed=1 $(QUICK) || exit; \
	done
	OMP_NUM_THREADS=2 $(BIN)/python -m pytest -n 2 --hypothesis-seed=2 $(QUICK)

lint: .venv/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

format: .venv/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/.docs
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going -d build/doctrees -b html docs site
	@echo "site/index.html"

bench: .venv/.bench
	$(BIN)/python -m benchmarks.gradient

clean:
	rm -rf .venv site demo build dist src/*.egg-info
	rm -rf .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests docs benchmarks reproductions -name __pycache__ -prune -exec rm -rf {} +

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	    "constraints.txt holds versions for Python 3.11 and newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv

.venv/.demo: $(SETTINGS) | .venv/bin/python
	$(INSTALL) -e '.[demo]'
	@touch $@

.venv/.test: $(SETTINGS) | .venv/bin/python
	$(INSTALL) -e '.[demo,onnx,dev]'
	@touch $@

.venv/.docs: $(SETTINGS) | .venv/bin/python
	$(INSTALL) -e '.[docs]'
	@touch $@

.venv/.bench: $(SETTINGS) | .venv/bin/python
	$(INSTALL) -e '.[demo,bench]'
# zennit asks for torchvision, to know its ResNets, and LXT for much more; what is compared needs neither.
	$(INSTALL) --no-deps zennit lxt
	@touch $@
