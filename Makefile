# Everything runs in .venv, which the first target that needs it makes. PYTHON chooses the interpreter (3.11 or newer).
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# torch is installed first and held, so that nothing pulls another (much larger) build
TORCH ?= torch==2.13.0
STAMP = $(VENV)/.installed
# what is compiled; a change of one needs the package installed again
SOURCES = $(wildcard src/isofire/*/_*.cpp src/isofire/*/_*.h)

# spiking libraries that cannot share an environment; one each, see tests/adapters/environments
LIBRARIES = peers spikingjelly0 sinabs

# how long `make search` looks for counterexamples
MINUTES ?= 60

# networks of chance that each chip's simulator runs
NETWORKS ?= 1000

# inputs of a quick reader; together several thousand
EXAMPLES ?= 450

.PHONY: demo docs test test-all search fuzz kills test-neon test-adapters test-triton test-chips lint format bench clean

demo: $(STAMP)
	$(BIN)/isofire demo --out demo-output

# the documentation as a site, in an environment of its own; what is missing or badly linked is an error
docs: .venvs/docs/.installed
	.venvs/docs/bin/python -m sphinx -q -W --keep-going -b html docs build/docs
	.venvs/docs/bin/python scripts/links.py build/docs

.venvs/docs/.installed: pyproject.toml setup.py
	$(PYTHON) -m venv .venvs/docs
	.venvs/docs/bin/python -m pip install --quiet "$(TORCH)"
	.venvs/docs/bin/python -m pip install --quiet --constraint constraints.txt --editable ".[docs,report,metrics]"
	touch $@

test: $(STAMP)
	$(BIN)/python -m pytest -n auto

# all combinations of options, where `make test` takes as few as hold every pair
test-all: $(STAMP)
	ISOFIRE_ALL=1 $(BIN)/python -m pytest -n auto

search: $(STAMP)
	$(BIN)/python scripts/search.py --minutes $(MINUTES) -n auto

fuzz: $(STAMP)
	$(BIN)/python -m tests.fuzz.run --examples $(EXAMPLES) --out build/fuzz.json

kills: $(STAMP)
	ISOFIRE_KILLS=100 $(BIN)/python -m pytest -q tests/sweep/test_kill.py

# the compiled code without Python, on this processor and for ARM in an emulator; on Debian: g++-aarch64-linux-gnu qemu-user
test-neon: $(STAMP)
	ISOFIRE_CASES=3000 ISOFIRE_TOOLS="aarch64-linux-gnu-g++ qemu-aarch64" $(BIN)/python -m pytest -q tests/compiled

test-adapters: $(LIBRARIES:%=.venvs/%/.installed)
	for set in $(LIBRARIES); do \
		ISOFIRE_LIBRARIES=$$set .venvs/$$set/bin/python -m pytest -q -n auto tests/adapters tests/nir || exit 1; done

# the GPU's kernels in Triton's interpreter, on CPU tensors, against the reference; and compiled for GPUs, which needs none
test-triton: .venvs/triton/.installed
	TRITON_INTERPRET=1 .venvs/triton/bin/python -m pytest -q tests/neurons -k "triton or any_neuron or tails"

# networks of chance, and recurrent ones, through the chips' own simulators, which have environments of their own
test-chips: $(STAMP) .venvs/xylosim/.installed .venvs/nengo-loihi/.installed .venvs/sinabs/.installed
	mkdir -p build/chips
	.venvs/xylosim/bin/python scripts/chips/xylo.py build/chips/xylo.json $$(( $(NETWORKS) / 2 ))
	.venvs/nengo-loihi/bin/python -W ignore scripts/chips/loihi.py build/chips/loihi.json $(NETWORKS)
	.venvs/sinabs/bin/python -W ignore scripts/chips/speck.py build/chips/speck.json $(NETWORKS)
	$(BIN)/python -m scripts.chips.recurrent build/chips/recurrent.json
	ISOFIRE_CHIPS=build/chips $(BIN)/python -m pytest -q tests/integer/test_oracles.py tests/integer/test_recurrent.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# CIFAR-10 lies in DATA, or where isofire downloads it to; what is stored and quiet already is not timed again
bench: $(STAMP) .venvs/bench/.installed
	PYTHONPATH=$(CURDIR)/.venvs/bench $(BIN)/isofire bench --resume $(DATA:%=--root %)

# other libraries to compare with, beside the environment of the tests
.venvs/bench/.installed: benchmarks/requirements.txt $(STAMP)
	$(BIN)/python -m pip install --quiet --no-deps --target .venvs/bench --requirement $<
	touch $@

$(STAMP): pyproject.toml setup.py constraints.txt $(SOURCES)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	# a peer to compare with; its own requirements would pull other torch packages, and its neurons need only these two
	$(BIN)/python -m pip install --quiet --constraint constraints.txt loguru tqdm
	$(BIN)/python -m pip install --quiet --no-deps spikingjelly==2.0.0
	touch $(STAMP)

.venvs/triton/.installed: pyproject.toml setup.py constraints.txt $(SOURCES)
	$(PYTHON) -m venv .venvs/triton
	.venvs/triton/bin/python -m pip install --quiet "$(TORCH)"
	.venvs/triton/bin/python -m pip install --quiet --constraint constraints.txt --editable . pytest hypothesis triton==3.9.0
	touch $@

.venvs/xylosim/.installed:
	$(PYTHON) -m venv .venvs/xylosim
	.venvs/xylosim/bin/python -m pip install --quiet xylosim==0.1.3 numpy
	touch $@

.venvs/nengo-loihi/.installed:
	$(PYTHON) -m venv .venvs/nengo-loihi
	.venvs/nengo-loihi/bin/python -m pip install --quiet nengo-loihi==1.1.0
	touch $@

.venvs/%/.installed: tests/adapters/environments/%.txt pyproject.toml setup.py constraints.txt $(SOURCES)
	$(PYTHON) -m venv .venvs/$*
	.venvs/$*/bin/python -m pip install --quiet --upgrade pip
	.venvs/$*/bin/python -m pip install --quiet "$(TORCH)"
	.venvs/$*/bin/python -m pip install --quiet --constraint constraints.txt --editable ".[report]" pytest pytest-xdist
	.venvs/$*/bin/python -m pip install --quiet --no-deps --requirement $<
	touch $@

clean:
	rm -rf $(VENV) .venvs build src/isofire.egg-info demo-output
