# Every target works alone on a machine that has only Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
WHOLE := $(VENV)/.whole
LOG ?= sqlite

.PHONY: help demo run test chance faults test-real lint fuzz bench kafka man first-day golden lock clean

help:
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

demo: $(READY)  ## the whole story on loopback, LOG=sqlite (default) or LOG=kafka
	$(BIN)/python -m demo --log $(LOG)

run: $(READY)  ## the embedded service on run/backupmx.toml, which the first run writes
	$(BIN)/backupmx run

test: $(WHOLE)  ## all tests, the Kafka parts against a real Kafka
	$(BIN)/python -m deploy.kafka.run --prepare
	$(BIN)/pytest -n 4 --dist loadfile --no-loadscope-reorder --ignore tests/real $(ARGS)

test-real: $(WHOLE)  ## real mail programs of Debian as senders and as primaries (needs root, Debian, apt; else it skips)
	$(BIN)/python -m tests.real.debian
	$(BIN)/pytest tests/real $(ARGS)

chance: $(READY)  ## the properties of `make test` once more, with examples that were not tried before
	$(BIN)/pytest -n 2 --hypothesis-profile=chance $(shell grep -rl "from hypothesis" tests) $(ARGS)

faults: $(READY)  ## what takes minutes: large mails, frozen brokers, a primary that flaps
	$(BIN)/python -m deploy.kafka.run --prepare
	$(BIN)/pytest -m long tests/faults tests/log $(ARGS)

lint: $(WHOLE)  ## ruff and mypy strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fuzz: $(READY)  ## SMTP sessions of chance against a real ingest (SESSIONS=N, SEED=S, one again: SESSION=K)
	$(BIN)/python -m fuzz --sessions $(or $(SESSIONS),1000) $(if $(SEED),--seed $(SEED)) $(if $(SESSION),--session $(SESSION))

bench: $(READY)  ## lines "name value unit", bench/results.json
	$(BIN)/python -m bench

kafka: $(READY)  ## a real Apache Kafka in the foreground (BROKERS=1 or 3)
	$(BIN)/python -m deploy.kafka.run --brokers $(or $(BROKERS),1)

$(READY): requirements-dev.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "backupmx needs Python 3.11 or later")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

$(WHOLE): $(READY) requirements-deploy.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-deploy.lock
	touch $@

first-day: $(READY)  ## write docs/first-day.md again, from real processes
	$(BIN)/python -m demo.first_day

man: $(READY)  ## write the manual page man/backupmx.1 again
	$(BIN)/python -m deploy.man

golden: $(READY)  ## write the golden notices of tests/deliver/cases again
	GOLDEN=1 $(BIN)/pytest -q tests/deliver/test_cases.py

lock:  ## write the lock files again (needs uv)
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--output-file requirements.lock pyproject.toml
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--constraint requirements.lock --group dev --output-file requirements-dev.lock pyproject.toml
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--constraint requirements-dev.lock --group deploy --output-file requirements-deploy.lock pyproject.toml

clean:
	rm -rf $(VENV) .cache run
