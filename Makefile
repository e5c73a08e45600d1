# Everything on a fresh machine with Python >= 3.11: `make demo`, `make test`.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: demo test test-slow lint format wheel clean

demo: $(READY)
	$(BIN)/streamingvlm demo

test: $(READY)
	$(BIN)/python -m pytest -m "not slow and not gpu"

test-slow: $(READY)
	$(BIN)/python -m pytest -m "slow and not gpu"

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
