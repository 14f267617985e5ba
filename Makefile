# The door to everything. `make demo` and `make test` need nothing but Python 3.11+ (Linux x86_64).
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

# Where no bytecode may be written every process of ours compiles all of its sources at each start: half a second.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo up test test-again test-all check format bench chaos simulate-long mutants schema pyz lock clean

help:  ## what there is
	@sed -n 's/^\([a-z-]*\):.*  ## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

setup: $(VENV)/.installed  ## virtual environment with the locked packages

$(VENV)/.installed: requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the locked packages into $(VENV) …"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: setup  ## a fleet of three nodes, a real workflow across it, and a clean stop
	@$(BIN)/muster demo

up: setup  ## a fleet on this machine until Ctrl-C; data stays in .muster (NODES=a,b names more nodes)
	@$(BIN)/muster up --nodes "$(NODES)"

# A file of tests is one process's, and so are the fleets that it starts. AT_ONCE=0 runs them one after another. In their
# own order, so that no long file is the last.
AT_ONCE ?= 3
SIDE_BY_SIDE := -n $(AT_ONCE) --dist loadfile --no-loadscope-reorder

test: setup  ## every test that starts its own parts: real broker, real workers; not the long ones, no chaos
	@$(BIN)/pytest -q $(SIDE_BY_SIDE) -m "not chaos and not long"

test-again: setup  ## what failed the last time, one after another
	@$(BIN)/pytest -q --last-failed --last-failed-no-failures none -m "not chaos and not long"

# What starts fleets runs once more with RabbitMQ as the broker.
ON_RABBIT := tests/fleet tests/chaos tests/acceptance tests/cli
test-all: setup  ## all, the long ones and chaos too, on PostgreSQL (MUSTER_TEST_DATABASE_URL); fleets again on RabbitMQ (MUSTER_TEST_AMQP_URL)
	@test -n "$(MUSTER_TEST_DATABASE_URL)" || { echo "set MUSTER_TEST_DATABASE_URL, for example postgresql://root@127.0.0.1/test"; exit 2; }
	@MUSTER_TEST_FLEET=postgres MUSTER_TEST_DATABASE_URL="$(MUSTER_TEST_DATABASE_URL)" \
		$(BIN)/pytest -q $(SIDE_BY_SIDE)
	@test -z "$(MUSTER_TEST_AMQP_URL)" || MUSTER_TEST_BROKER=amqp MUSTER_TEST_FLEET=postgres \
		MUSTER_TEST_DATABASE_URL="$(MUSTER_TEST_DATABASE_URL)" $(BIN)/pytest -q $(SIDE_BY_SIDE) $(ON_RABBIT)

check: setup  ## lint, format, types, and the rules of the house
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/pytest -q tests/house

format: setup  ## write what `check` asks for, as far as a program can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: setup  ## ours against raw Celery, alternating; ONLY="hops20 shell10" for some of them
	@$(BIN)/python -m bench $(ONLY)

chaos: setup  ## kill -9 everything at random and count effects (MUSTER_TEST_CHAOS_SECONDS)
	@$(BIN)/pytest -q -s -m chaos tests/chaos

SECONDS ?= 600
simulate-long: setup  ## random workflows and everything that goes wrong, on every core for SECONDS=600
	@$(BIN)/python tests/engine/simulate.py --seconds $(SECONDS)

mutants: setup  ## twenty-four faults put into the engine by hand: the simulation has to find each
	@$(BIN)/python tests/mutants/hunt.py

schema: setup  ## write the JSON Schemas under config/ from the loader's own tables
	@$(BIN)/muster schema > config/workflow.schema.json
	@cp config/workflow.schema.json config/examples/workflow.schema.json
	@$(BIN)/muster schema --of pack > config/pack.schema.json
	@$(BIN)/muster schema --of config > config/pack-config.schema.json
	@$(BIN)/muster schema --of action > config/action.schema.json

pyz: setup  ## dist/muster.pyz: one file that runs parts of workflows where nothing is installed
	@$(BIN)/muster pyz dist/muster.pyz

lock:  ## resolve again (needs uv): hashes, no addresses
	uv pip compile --universal --generate-hashes --no-emit-index-url --all-extras --no-header -q pyproject.toml -o requirements.lock

clean:  ## what tools leave behind; the virtual environment and .muster stay
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis dist
	@find . -name __pycache__ -not -path './$(VENV)/*' -type d -prune -exec rm -rf {} +
