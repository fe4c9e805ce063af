# `make test` and `make demo` start from nothing but Python >= 3.11, git and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What is imported is compiled then; most never is.
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --no-compile
LOCK := --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --quiet

.PHONY: demo test lint types unit long peers regret bench schemathesis audit lock contract clean

demo: $(VENV)/runtime
	$(BIN)/decision demo $(DEMO_ARGS)

# Beside each other: types are checked by one processor, and tests wait now and then.
test: $(VENV)/dev
	$(MAKE) --no-print-directory -j3 lint types unit

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/dev
	$(BIN)/mypy

unit: $(VENV)/dev
	$(BIN)/pytest -n 3 --dist worksteal

long: $(VENV)/dev
	$(BIN)/pytest -m long

peers: $(VENV)/dev .venv-feast/ready .venv-mlserver/ready ## against the real Feast and MLServer
	$(BIN)/pytest -m peers

regret: $(VENV)/dev ## our default against MABWiser and Vowpal Wabbit
	PYTHONPATH=. $(BIN)/python -W ignore benchmarks/regret --write

bench: $(VENV)/dev ## how fast all of it is, beside its peers; wants a machine that does nothing else
	$(BIN)/python -W ignore -m benchmarks.speed --write

schemathesis: $(VENV)/dev .venv-schemathesis/ready ## over the whole OpenAPI document, some minutes
	$(BIN)/python benchmarks/conformance.py --write

# --strict: what could not be looked up is a failure, not a line in a table.
audit: .venv-audit/ready ## known vulnerabilities of all that is locked; needs pypi.org
	for lock in requirements*.lock; do \
		.venv-audit/bin/pip-audit --strict --disable-pip --require-hashes --progress-spinner off -r $$lock || exit 1; \
	done

contract: $(VENV)/dev ## rewrite the generated files: OpenAPI and catalog JSON Schema
	$(BIN)/python -m decision.contract

lock: ## pin again; the lock files carry hashes and no addresses
	uv pip compile pyproject.toml --group build $(LOCK) -o requirements.lock
	uv pip compile pyproject.toml --group build --extra otel $(LOCK) -o requirements-otel.lock
	uv pip compile pyproject.toml --group dev $(LOCK) -o requirements-dev.lock
	uv pip compile --group feast $(LOCK) -o requirements-feast.lock
	uv pip compile --group mlserver $(LOCK) -o requirements-mlserver.lock
	uv pip compile --group schemathesis $(LOCK) -o requirements-schemathesis.lock
	uv pip compile --group audit $(LOCK) -o requirements-audit.lock

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed"'
	$(PYTHON) -m venv $(VENV)

$(VENV)/runtime: requirements.lock pyproject.toml | $(VENV)/bin/python
	$(PIP) --require-hashes -r requirements.lock
	$(PIP) --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/dev: requirements-dev.lock pyproject.toml | $(VENV)/bin/python
	$(PIP) --require-hashes -r requirements-dev.lock
	$(PIP) --no-deps --no-build-isolation -e .
	touch $@ $(VENV)/runtime

.venv-%/ready: requirements-%.lock
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r $<
	touch $@

clean:
	rm -rf $(VENV) .venv-feast .venv-mlserver .venv-schemathesis .venv-audit .mypy_cache .ruff_cache .pytest_cache .hypothesis
