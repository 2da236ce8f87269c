# Everything runs from the virtual environment in .venv, which the first target that needs it makes.

PYTHON ?= python3
PORT ?= 8000
ADMIN_PORT ?= 8001
TEST_PROCESSES ?= 2
DEMO_KEEP ?= 1

BIN := .venv/bin
# A stamp is as old as the last install. The demo leaves out the development tools, to answer sooner.
DEMO_INSTALLED := .venv/.installed-demo
INSTALLED := .venv/.installed
# What an installation is made from; the rest of the code is used where it lies.
PACKAGING := pyproject.toml setup.py constraints.txt $(wildcard embeddings/kernel/*)
# What describes the package, apart from what it is made of.
TOOLS_BIN := .venv-tools/bin
TOOLS := .venv-tools/.installed
# Tests of one file share what takes long to make, so a file stays in one process.
PYTEST := $(BIN)/pytest -n $(TEST_PROCESSES) --dist loadfile
STORE := .store/demo
LOG := .store/demo.log
# The demo keeps to the PostgreSQL beside its store, whatever database the environment names.
BESIDE_STORE := env -u OPPORTUNE_DATABASE
URL := http://127.0.0.1:$(PORT)
ADMIN := $(if $(filter-out 0,$(ADMIN_PORT)),--admin http://127.0.0.1:$(ADMIN_PORT))

.DEFAULT_GOAL := help
.PHONY: help install demo check-data test test-slow test-processors test-kill check sanitize bench wheel sbom docs gpu-check gpu-index gpu-fit gpu-search gpu-latency clean

help: ## Show this text
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "PORT=8000       where the demo serves on 127.0.0.1"
	@echo "ADMIN_PORT=8001 where the demo's management API answers on 127.0.0.1; 0 for none"
	@echo "DEMO_KEEP=1     0 stops the demo's server after the three answers"
	@echo "TEST_PROCESSES=2  how many tests run at a time"
	@echo "PYTHON=python3  the Python (3.11 or newer) that makes the virtual environment"

install: $(INSTALLED) ## Make the virtual environment and install the pinned packages, if they changed

demo: $(DEMO_INSTALLED) ## Load and train on Complete Journey if not done yet, serve, show answers, serve until Ctrl-C
	@$(BIN)/python -c 'import socket; socket.create_server(("127.0.0.1", $(PORT)))' 2>/dev/null || { \
		echo "Port $(PORT) of 127.0.0.1 is taken or not allowed; choose another: make demo PORT=8010" >&2; \
		exit 1; \
	}
	@test -e $(STORE)/CURRENT || { \
		$(BIN)/opportune-load --data complete-journey-today --store $(STORE) \
		&& $(BESIDE_STORE) $(BIN)/opportune-train --data postgres --store $(STORE); \
	}
# The samples run beside the server, so that a server that stops ends the wait for it at once.
	@$(BESIDE_STORE) $(BIN)/opportune-serve --store $(STORE) --port $(PORT) --admin-port $(ADMIN_PORT) >$(LOG) 2>&1 & server=$$!; \
	$(BIN)/opportune-bench demo --url $(URL) $(ADMIN) & samples=$$!; \
	trap 'kill $$samples $$server 2>/dev/null; wait' EXIT; \
	trap 'exit 130' INT TERM HUP; \
	failed() { echo "demo: $$1; the server's log ($(LOG)) ends with:" >&2; tail -n 40 $(LOG) >&2; exit 1; }; \
	while kill -0 $$samples 2>/dev/null && kill -0 $$server 2>/dev/null; do sleep 0.1; done; \
	kill -0 $$server 2>/dev/null || failed "the server stopped"; \
	wait $$samples || failed "the samples failed"; \
	if [ "$(DEMO_KEEP)" = 0 ]; then exit 0; fi; \
	trap 'echo " stopped"; exit 0' INT; \
	printf '\nServing on %s, log in %s. Stop with Ctrl-C.\n' $(URL) $(LOG); \
	wait $$server || failed "the server stopped"

test: $(INSTALLED) ## Run the whole test suite
	$(PYTEST)

test-slow: $(INSTALLED) ## Run the tests that take minutes each
	$(BIN)/pytest -m slow

# BLAS and torch choose their code by the processor, and round differently with each. Only torch looks whether the
# processor has what it is told to use.
test-processors: $(INSTALLED) ## Run the whole test suite as other processors would compute it
	OPENBLAS_CORETYPE=Haswell ATEN_CPU_CAPABILITY=default $(PYTEST)
	OPENBLAS_CORETYPE=Zen ATEN_CPU_CAPABILITY=avx2 $(PYTEST)
	! grep -qw avx512f /proc/cpuinfo || OPENBLAS_CORETYPE=SkylakeX ATEN_CPU_CAPABILITY=avx2 $(PYTEST)

test-kill: $(INSTALLED) ## Kill service and PostgreSQL again and again under load, for some minutes
	$(BIN)/pytest -s -m kill tests/integration/test_kills.py

check: $(INSTALLED) ## Lint, formatting, types, and the rules of who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports
	$(BIN)/squawk embeddings/database/migrations/*.sql

# Built in a folder of its own: the normal kernel stays as it is. The import mode keeps the tests from finding that first.
sanitize: $(INSTALLED) ## Run the kernel's tests on a build that stops at bad memory accesses and undefined behaviour
	rm -rf build/sanitize && mkdir -p build/sanitize
	printf '[build]\nbuild_base = build/sanitize/objects\n' >build/sanitize/dist.cfg
	CFLAGS="-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all" \
	DIST_EXTRA_CONFIG="$(CURDIR)/build/sanitize/dist.cfg" \
	$(BIN)/pip install --quiet --no-deps --target build/sanitize .
	LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libstdc++.so)" \
	ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 PYTHONPATH=build/sanitize \
	$(BIN)/pytest --import-mode=append tests/property tests/contract

check-data: $(DEMO_INSTALLED) ## Say what the tables in DATA=DIR hold and what they are worth, in seconds
	@test -n "$(DATA)" || { echo "Say which folder: make check-data DATA=DIR" >&2; exit 2; }
	@$(BIN)/opportune-train --check --data "$(DATA)"

bench: $(INSTALLED) ## Run every benchmark suite, results into benchmarks/results
	$(BIN)/opportune-bench quality --json benchmarks/results/quality.json
	$(BIN)/opportune-bench latency --json benchmarks/results/latency.json
	$(BIN)/opportune-bench search --json benchmarks/results/search.json
	$(BIN)/opportune-bench fit --json benchmarks/results/fit.json
	$(BIN)/opportune-bench fit --grow --json benchmarks/results/grow.json
	$(BIN)/opportune-bench strain --json benchmarks/results/strain.json
	$(BIN)/opportune-bench events --json benchmarks/results/events.json
	$(BIN)/opportune-bench live --json benchmarks/results/live.json

wheel: $(INSTALLED) ## Build the wheel of this platform into dist, so that its user needs no compiler
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .
	@ls dist/*.whl

# Of what serves, in an environment of its own: what develops and trains is not part of the service.
sbom: $(TOOLS) ## Write what the service is made of, and under which licences, into dist
	rm -rf build/sbom && $(PYTHON) -m venv --without-pip build/sbom
	$(TOOLS_BIN)/pip --python build/sbom/bin/python install --quiet -c constraints.txt '.[cpu]'
	mkdir -p dist
	$(TOOLS_BIN)/cyclonedx-py environment --pyproject pyproject.toml -o dist/sbom.json build/sbom/bin/python
	$(TOOLS_BIN)/pip-licenses --python build/sbom/bin/python --format markdown --order license --output-file dist/licences.md

docs: $(TOOLS) ## Build the documentation as a site that needs nothing from elsewhere, into site
	$(TOOLS_BIN)/zensical build --clean

# On a machine with a CUDA device, in an environment made by hand: CONTRIBUTING.md says how.
gpu-check: gpu-index gpu-fit gpu-search gpu-latency ## Check and measure on a CUDA device, in less than eight minutes

gpu-index: ## Run the contract suite of indexes on a CUDA device
	$(BIN)/pytest -m gpu tests/contract

gpu-fit: ## Fit towers and ranker on a CUDA device, and hold its ONNX sessions against those on the CPU
	$(BIN)/pytest -m gpu tests/unit tests/integration

gpu-search: ## Search a million rows of 128 dimensions on a CUDA device, beside other ways
	$(BIN)/opportune-bench search --device cuda --quick

gpu-latency: ## Measure the service on a CUDA device
	$(BIN)/opportune-bench latency --device cuda --quick

clean: ## Remove the virtual environment, the demo's store and the caches
	rm -rf .venv .venv-tools $(STORE) $(LOG) build dist site embeddings/kernel.*.so .pytest_cache .hypothesis .ruff_cache .import_linter_cache
	find benchmarks embeddings serving training tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(TOOLS): tools.txt
	$(PYTHON) -m venv .venv-tools
	$(TOOLS_BIN)/pip install --quiet -r tools.txt
	@touch $@

# pip is the last thing that venv writes: an interrupted venv is made again.
$(BIN)/pip:
	$(PYTHON) -m venv .venv

$(DEMO_INSTALLED): $(PACKAGING) | $(BIN)/pip
	$(BIN)/pip install -c constraints.txt -e '.[cpu,train,demo]'
	@touch $@

$(INSTALLED): $(PACKAGING) | $(BIN)/pip
	$(BIN)/pip install -c constraints.txt -e '.[cpu,train,demo,dev]'
	@touch $(DEMO_INSTALLED) $@
