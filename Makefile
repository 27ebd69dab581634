# Everything a newcomer needs; each target installs what it needs first. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
PIP_AUDIT_VERSION := 2.10.1
CANARIES := faust-streaming mode-streaming aiokafka
FLINK_KAFKA := org.apache.flink:flink-sql-connector-kafka:5.0.0-2.2

# Where it is set, every start compiles PyTorch's modules again: 3 of 6 s of a worker's imports.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install demo test faults faults-cluster bench bench-quick bench-growth bench-peers check canary clients audit format lock clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "streamer needs Python 3.11 or newer; set PYTHON=/path/to/python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || { echo "creating $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "installing the pinned dependencies: about 5 GB with PyTorch's CUDA libraries, 1-5 minutes the first time"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@$(BIN)/uv pip install --python $(BIN)/python --require-hashes -r requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

install: $(VENV)/.installed  ## set up .venv from requirements.lock

demo: install  ## the whole system on this machine; ARGS="--film FILE": a film of yours is seen, heard and described
	@$(BIN)/streamer demo $(ARGS)

test: install  ## unit tests on all cores, then integration tests on a real Kafka and a real Redis
	@$(BIN)/pytest tests/unit --numprocesses auto --maxprocesses 8 --dist loadfile
	@$(BIN)/pytest tests/integration tests/faults

faults: install  ## the fault suite at length: kills, outages, lost data, rebalances, fuzz; 25 minutes on 2 cores
	@STREAMER_TEST_FAULTS=full $(BIN)/pytest tests/faults -m "not cluster"

faults-cluster: install  ## faults of a Kafka of three brokers: restarts, stalls, leaders that move; 45 minutes on 2 cores
	@STREAMER_TEST_FAULTS=full $(BIN)/pytest tests/faults/test_cluster.py

bench: install  ## the benchmarks, 15 minutes on 2 cores: docs/benchmarks.md; ARGS=--record writes that page
	@$(BIN)/python -m bench $(ARGS)

bench-quick: install  ## the same in 2 to 4 minutes, to check that they run
	@$(BIN)/python -m bench --quick

bench-growth: install  ## how the cost of a window grows, and the costs that `streamer size` uses; 20 minutes on 2 cores
	@$(BIN)/python -m bench.growth $(ARGS)

check: install  ## format, lint, spelling, types, import rules
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/codespell
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/pytest -q tests/typing

# An environment with its packages before those of $(VENV): $(1) its folder, $(2) its requirements.
define environment
@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(1)
@$(BIN)/uv pip install --quiet --python $(1)/bin/python --no-deps -r $(2)
@$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
  > $$($(1)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/streamer-venv.pth
endef

.venv-peers/.installed: bench/peers/requirements.txt $(VENV)/.installed
	$(call environment,.venv-peers,$<)
	@touch $@

.venv-flink/.installed: bench/peers/requirements-flink.txt $(VENV)/.installed
	$(call environment,.venv-flink,$<)
	@$(BIN)/python -c 'import pathlib, sys; from jgo.maven import MavenContext; from jgo.parse import Coordinate; \
	  maven = MavenContext(repo_cache=pathlib.Path(sys.argv[1])); \
	  maven.create_dependency(Coordinate.parse(sys.argv[2])).artifact.resolve()' .venv-flink/maven $(FLINK_KAFKA)
	@touch $@

bench-peers: .venv-peers/.installed .venv-flink/.installed  ## the same job in other engines, beside ours: their speed, and the cost of a kill; 20 minutes
	@$(BIN)/python -m bench.peers.compare
	@$(BIN)/python -m bench.peers.kill

# Their newest versions, with what these need, before the packages of $(VENV).
canary: install  ## whether the newest Faust, mode and aiokafka still have the internals that streamer uses
	@env=$$(mktemp -d) && trap 'rm -rf "$$env"' EXIT && \
	  $(BIN)/uv venv --quiet --clear --python $(BIN)/python "$$env" && \
	  $(BIN)/uv pip install --quiet --python "$$env/bin/python" --upgrade $(CANARIES) && \
	  $(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
	    > $$("$$env/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/streamer-venv.pth && \
	  "$$env/bin/python" -c 'import sys; from importlib.metadata import version; \
	    [print(name, version(name)) for name in sys.argv[1:]]' $(CANARIES) && \
	  "$$env/bin/python" -m pytest -q tests/unit/broker

clients: install  ## what Kafka clients of other languages send as they are; writes the table of docs/clients.md
	@$(BIN)/python -m tests.clients $(ARGS)

audit: install  ## ask a vulnerability service (osv.dev) about the pinned packages; needs the network, so not part of check
	@out=$$($(BIN)/uv tool run --quiet pip-audit==$(PIP_AUDIT_VERSION) --requirement requirements.lock --disable-pip \
	  --require-hashes --vulnerability-service osv 2>&1); code=$$?; \
	if echo "$$out" | grep -q '^requests\.exceptions'; then \
	  echo "make audit: osv.dev cannot be reached; nothing was checked" >&2; exit 2; fi; \
	echo "$$out"; exit $$code

format: install  ## fix what ruff can fix
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

lock: install  ## resolve pyproject.toml again: requirements.lock, and requirements.worker.lock for the image
	@$(BIN)/uv pip compile --quiet --universal --all-extras --python-version 3.11 --generate-hashes --no-header \
	  --upgrade pyproject.toml -o requirements.lock
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	  --upgrade --constraints requirements.lock pyproject.toml -o requirements.worker.lock

clean:  ## remove the virtual environment and local state
	@test ! -x $(BIN)/streamer || $(BIN)/streamer down
	@rm -rf $(VENV) .venv-peers .venv-flink .streamer
