# make demo     everything set up, then a real kernel freezes without the IO_FLUSHER state and lives with it
# make setup    a virtual environment with all that development needs
# make check    lint, format, types and the quick tests; installs nothing (a minute on two processors)
# make test     everything set up, then every test, those in virtual machines included
# make aarch64  the same for putting the state on running processes, on an emulated arm64 machine
# make thousand  1,000 threads in every kind of wait get the state 100 times (half an hour under emulation)
# make faults   servers killed and connections cut 1,000 times under a write load (10 minutes)
# make interop  libnbd's and NetworkBlockDevice/nbd's own tests of servers, fetched by apt, built, and run against ours
# make fuzz     both ends of the NBD protocol by the million; goes on where it was interrupted (half an hour of processor time)
# make hundred  100 runs in a row, played, interrupted and failed, leave nothing behind (10 minutes under emulation)
# make guard    100 freezes of a real kernel that a guard ends, and some that nobody does (20 minutes under emulation)
# make matrix   every stack that freezes, ten runs of each half, and over the kernels (hours under emulation)

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo check test aarch64 faults interop fuzz thousand hundred guard matrix mutants setup lint clean

demo: setup
	$(BIN)/ioflusher lab setup
	$(BIN)/ioflusher lab run swap-on-nbd

check:
	@test -e $(READY) || { echo "no $(READY): run make setup first" >&2; exit 2; }
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -n 2 -m "not vm"

# Quick tests do part of what they do here: fewer rounds, and a death after every fourth call. A file's tests stay
# together, because they share a guest; what a busy machine would change (marked alone) runs by itself.
EVERY_ROUND := IOFLUSHER_ROUNDS=20 IOFLUSHER_DEADLY_STEP=1
test: setup lint
	tools/packages test
	$(BIN)/ioflusher lab setup
	$(EVERY_ROUND) $(BIN)/python -m pytest -n 2 --dist loadfile -m "not alone"
	$(EVERY_ROUND) $(BIN)/python -m pytest -m alone

# Mutation testing of the code that judges; names in TARGETS, of tests/mutants.toml, choose parts of it.
mutants: setup
	$(BIN)/python -m tests.mutants $(TARGETS)

aarch64: setup
	tools/packages aarch64
	$(BIN)/python -m tests.flag.aarch64.machine
	$(BIN)/python -m pytest tests/flag/aarch64

thousand: setup
	tools/packages test
	mkdir -p build
	gcc -O2 -pthread -static -o build/waits tests/flag/programs/waits.c
	$(BIN)/python tests/flag/benchmark.py threads build/waits --rounds 100
	$(BIN)/ioflusher lab exec --timeout 7200 -- $(CURDIR)/$(BIN)/python tests/flag/benchmark.py \
		threads build/waits --rounds 100 --wait-ms 3000 --feed-ms 1500

faults: setup
	$(BIN)/python -m tests.nbd.faults --kills 1000

# Of which suite of the distribution: a newer one than this machine's has clients with extended headers.
SUITE := trixie
interop: setup
	tools/packages test
	$(BIN)/python -m tests.nbd.interop --suite $(SUITE)

INPUTS := 10000000
fuzz: setup
	mkdir -p build
	$(BIN)/python -m tests.nbd.fuzz --inputs $(INPUTS) --record build/fuzz.jsonl

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

hundred: setup
	$(BIN)/ioflusher lab setup
	$(BIN)/python -m tests.lab.hundred

guard: setup
	$(BIN)/ioflusher lab setup
	$(BIN)/python -m tests.rescue.hundred

# What is measured is kept, so that the same command goes on where it was interrupted.
matrix: setup
	$(BIN)/ioflusher lab setup
	$(BIN)/ioflusher lab matrix stacks --runs 10 --report reports
	$(BIN)/ioflusher lab matrix kernels --report reports

setup: $(READY)

# Made again when the project's requirements change; a half-made one is not taken for a whole one.
$(READY): pyproject.toml
	tools/packages python
	python3 -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) reports build dist
