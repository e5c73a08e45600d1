# Everything on a fresh machine with Python >= 3.11: `make demo`, `make test`.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: demo test test-slow test-kernels lint format wheel clean

demo: $(READY)
	$(BIN)/streamingvlm demo

# One process a core; each test runs torch on one thread.
PARALLEL := -n logical --maxprocesses 8 --dist worksteal

test: $(READY)
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow and not gpu"

test-slow: $(READY)
	$(BIN)/python -m pytest $(PARALLEL) -m "slow and not gpu"

# Triton's kernels: in its interpreter, and compiled for an H100. Triton is kept apart: torch behaves otherwise where it
# finds it.
test-kernels: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(VENV)/triton -c constraints.txt triton
	PYTHONPATH=$(VENV)/triton $(BIN)/python -m pytest $(PARALLEL) tests/kernels

lint: $(READY)
	$(BIN)/ruff check src tests scripts
	$(BIN)/ruff format --check src tests scripts
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix src tests scripts
	$(BIN)/ruff format src tests scripts

wheel: $(READY)
	$(BIN)/python -m build --wheel --no-isolation --outdir dist

# torch comes first and pinned: left to itself pip takes the newest build, with gigabytes of CUDA packages.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)" -c constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[arcade,train,dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
