# A bare machine needs Python 3.11 or newer, make and a package index that pip can reach. Everything else is installed
# below .venv, exactly as the hash-checked files in requirements/ say. Stamps in .venv make a second run start at once.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN    := .venv/bin
UV     := $(BIN)/uv
INSTALL := $(UV) pip install -q --python $(BIN)/python --compile-bytecode
HEAVY  := .venv-frameworks
RUN    := .venv/.installed-run
TEST   := .venv/.installed-test
ALL    := $(HEAVY)/.installed
PEERS  := .venv-judges
JUDGES := $(PEERS)/.installed
JOBS   ?= 2
ID     ?=

# Where this variable is set to a value Python writes no bytecode, and each start would compile every module again.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help demo test test-frameworks judge check bench campaign docs lock clean

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-15s %s\n", $$1, $$2}' Makefile

demo: $(RUN)  ## install, then train, release and serve a model, and show what happens
	$(BIN)/salver demo

test: $(TEST)  ## every test of the first tier
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

test-frameworks: $(ALL)  ## the tests of every framework, in an environment of 3 GB
	$(HEAVY)/bin/python -m pytest -n $(JOBS) --dist loadfile tests/frameworks

judge: $(TEST) $(JUDGES)  ## what others wrote, against real servers: nginx, promtool (both installed by you), the KServe client
	$(BIN)/python -m pytest tests/judges

check: $(TEST)  ## format, lint, types, layers, size budget
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tools.budget

bench: $(TEST)  ## cost per prediction beside FastAPI and nginx (needs wrk; ARGS="--quick --only NAME")
	$(BIN)/python -m bench.run $(ARGS)

campaign: $(TEST)  ## one long test: make campaign ID=R1 (without ID: list them)
	$(BIN)/python -m tests.campaigns $(ID) $(ARGS)

docs: $(TEST)  ## write the reference again from the code
	$(BIN)/python -m tools.reference

EXTRAS = --extra demo --extra onnx --extra client --extra parquet --extra jwt --extra otel
LOCK = $(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate $(ARGS)

lock: $(UV)  ## resolve requirements/*.txt again (ARGS=--upgrade for newer versions)
	$(LOCK) requirements/uv.in -o requirements/uv.txt
	$(LOCK) requirements/build.in -o requirements/build.txt
	$(LOCK) pyproject.toml --extra demo --extra onnx --extra client -c requirements/uv.txt -o requirements/run.txt
	$(LOCK) pyproject.toml $(EXTRAS) requirements/test.in -c requirements/run.txt -o requirements/test.txt
	UV_FIND_LINKS="$(PIP_FIND_LINKS)" $(UV) pip compile -q --python-version 3.11 --generate-hashes --no-header --no-annotate $(ARGS) \
	  --no-emit-package torch pyproject.toml $(EXTRAS) requirements/test.in requirements/frameworks.in \
	  -c requirements/test.txt -c requirements/torch.txt -o requirements/frameworks.txt

	$(LOCK) requirements/judges.in -o requirements/judges.txt

clean:  ## remove everything that make made
	rm -rf .venv $(HEAVY) $(PEERS) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis bench/.work bench/.lock dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(UV): requirements/uv.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Salver needs Python 3.11 or newer: make PYTHON=...")'
	test -x $(BIN)/python && $(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/uv.txt
	touch $(UV)

$(RUN): requirements/run.txt requirements/build.txt pyproject.toml | $(UV)
	$(INSTALL) --require-hashes -r requirements/run.txt
	$(INSTALL) --no-deps --build-constraints requirements/build.txt -e .
	touch $(RUN)

$(TEST): requirements/test.txt $(RUN)
	$(INSTALL) --require-hashes -r requirements/test.txt
	touch $(TEST)

# The CPU build of torch is no package of the index: it comes from where PIP_FIND_LINKS points, else it is the index's own.
$(ALL): requirements/frameworks.txt requirements/torch.txt pyproject.toml | $(UV)
	test -x $(HEAVY)/bin/python || $(UV) venv -q --python $(BIN)/python $(HEAVY)
	UV_FIND_LINKS="$(PIP_FIND_LINKS)" $(UV) pip install -q --python $(HEAVY)/bin/python --compile-bytecode -r requirements/torch.txt -c requirements/frameworks.txt
	$(UV) pip install -q --python $(HEAVY)/bin/python --compile-bytecode --require-hashes --no-deps -r requirements/frameworks.txt
	$(UV) pip install -q --python $(HEAVY)/bin/python --no-deps --build-constraints requirements/build.txt -e .
	touch $(ALL)

$(JUDGES): requirements/judges.txt | $(UV)
	test -x $(PEERS)/bin/python || $(UV) venv -q --python $(BIN)/python $(PEERS)
	$(UV) pip install -q --python $(PEERS)/bin/python --compile-bytecode --require-hashes -r requirements/judges.txt
	touch $(JUDGES)
