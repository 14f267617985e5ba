# The door to everything. `make demo` and `make test` need nothing but Python 3.11+ (Linux x86_64).
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: setup demo up test test-all check bench chaos simulate-long lock clean

setup: $(VENV)/.installed  ## virtual environment with the locked packages

$(VENV)/.installed: requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the locked packages into $(VENV) …"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

lock:  ## resolve again (needs uv): hashes, no addresses
	uv pip compile --universal --generate-hashes --no-emit-index-url --all-extras --no-header -q pyproject.toml -o requirements.lock
