# Everything runs in .venv, which the first target that needs it makes. PYTHON chooses the interpreter (3.11 or newer).
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# torch is installed first and held, so that nothing pulls another (much larger) build
TORCH ?= torch==2.13.0
STAMP = $(VENV)/.installed

.PHONY: demo test lint format bench clean

demo: $(STAMP)
	$(BIN)/isofire demo --out demo-output

test: $(STAMP)
	$(BIN)/python -m pytest -n auto

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)
	$(BIN)/python -m benchmarks.run

$(STAMP): pyproject.toml setup.py constraints.txt src/isofire/neurons/_kernels.cpp
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	# a peer to compare with; its own requirements would pull other torch packages, and its neurons need only these two
	$(BIN)/python -m pip install --quiet --constraint constraints.txt loguru tqdm
	$(BIN)/python -m pip install --quiet --no-deps spikingjelly==2.0.0
	touch $(STAMP)

clean:
	rm -rf $(VENV) build src/isofire.egg-info demo-output
