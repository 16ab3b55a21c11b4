# Everything is set up by the commands themselves: `make demo` on a fresh machine is enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
INTEROP := .interop
INTEROP_STAMP := $(INTEROP)/.installed
TESTS ?= tests
JOBS ?= 2
DEMO_ARGS ?= $(if $(BROKER),--broker $(BROKER))

.PHONY: demo test interop servers check bench faults clean

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Celeriac needs Python 3.11 or later: make PYTHON=python3.11 ..."; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) 2>/dev/null || { rm -rf $(VENV); \
		echo "installing the venv module (Debian package python3-venv)"; \
		apt-get update -qq && apt-get install -y -qq python3-venv && $(PYTHON) -m venv $(VENV); }
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: $(STAMP)
	$(BIN)/python -m examples.backoffice $(DEMO_ARGS)

test: $(STAMP) interop servers
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder -m "not alone" $(TESTS)
	$(BIN)/python -m pytest -m alone $(TESTS) || [ $$? = 5 ]  # 5: there are none among these

# The real celery package, for tests/interop, in an environment of its own: nothing of Celeriac's can
# come to depend on it. Where it cannot be installed, these tests are skipped.
interop: $(STAMP)
	@cmp -s tests/interop/requirements.txt $(INTEROP_STAMP) || { \
		$(BIN)/python -m venv --clear $(INTEROP) && \
		$(INTEROP)/bin/pip install --quiet --disable-pip-version-check \
			-r tests/interop/requirements.txt && \
		cp tests/interop/requirements.txt $(INTEROP_STAMP); } || \
		{ rm -rf $(INTEROP); echo "celery could not be installed: tests/interop is skipped"; }

# The real servers that tests start for themselves, and libfaketime, which sets a process's clock.
# Installed where that is possible (root on Debian or Ubuntu), without a service being started;
# elsewhere tests without a server are skipped.
servers:
	@for server in redis-server rabbitmq-server faketime; do \
		command -v $$server >/dev/null 2>&1 && continue; \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
			echo "installing $$server"; policy=/usr/sbin/policy-rc.d; made=; \
			[ -e $$policy ] || { printf '#!/bin/sh\nexit 101\n' >$$policy && chmod +x $$policy && made=1; }; \
			{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
				apt-get install -y -qq --no-install-recommends $$server >/dev/null; } || \
				echo "$$server could not be installed: its tests are skipped"; \
			[ -z "$$made" ] || rm -f $$policy; \
		else echo "$$server is not installed: its tests are skipped"; fi; \
	done

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py

bench: $(STAMP)
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

faults: $(STAMP)
	CELERIAC_FAULTS=full $(BIN)/python -m pytest -q -s --timeout=1800 tests/faults

clean:
	rm -rf $(VENV) $(INTEROP) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
