# `make demo` and `make test` each do everything from a fresh clone; Python 3.11 or newer and make are all they need.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
BIN := .venv/bin
DATA ?= $(wildcard ../shared/data)

.PHONY: setup demo test lint types bench bench-setup redis8 llmlingua-legacy clean

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; say where with: make PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/demo-ready: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable ".[demo]"
	@touch $@

.venv/test-ready: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet "pip>=25.1"  # knows dependency groups
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[all,llmlingua]" --group test --group lint
	@touch $@ .venv/demo-ready

setup: .venv/test-ready  ## everything that `make test` needs

demo: .venv/demo-ready  ## a support desk's traffic, plain and with the layers: table and HTML report
	$(BIN)/llmcost demo $(ARGS)

lint: .venv/test-ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/test-ready
	$(BIN)/mypy

test: lint types  ## the one command: lint, types, tests, notebooks, README code
	$(BIN)/python -m pytest $(ARGS)

bench-setup: .venv/test-ready  ## the rivals that benchmarks are measured beside, and word lists of Debian's
	$(BIN)/python -m pip install --quiet --group bench
	$(BIN)/python -m pip install --quiet --no-deps litellm==1.106.2
	@test -d /usr/share/wordnet && test -d /usr/share/iso-codes || apt-get install -y --no-install-recommends wordnet-base iso-codes

bench: .venv/test-ready
	for name in ledger cache routing compression; do \
		OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 LLMCOST_DATA="$(DATA)" $(BIN)/python -m benchmarks.$$name $(ARGS) || exit 1; \
	done

redis8:  ## Redis 8 with vector sets in a side environment, for the tests marked `redis8`
	sh scripts/redis8.sh

llmlingua-legacy:  ## what needs transformers 4.46, tested in a side environment
	sh scripts/llmlingua_legacy.sh

clean:
	rm -rf .venv .venv-redis8 .venv-llmlingua .mypy_cache .ruff_cache .pytest_cache
