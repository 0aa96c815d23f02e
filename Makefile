# Everything a newcomer types. Each target sets up what it needs, once, and says so.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Tests start some hundred processes. Each would compile the gateway anew without this.
export PYTHONDONTWRITEBYTECODE :=
# A user's pip.conf may say `user = true`, which fails in an environment of its own.
export PIP_USER := 0

# Half-made (python3-venv was missing, setup was interrupted, its Python is gone): made anew.
ifneq ($(wildcard $(VENV)/.),)
ifneq ($(shell $(BIN)/python -c 'import pip, sys; print(sys.version_info >= (3, 11))' 2>/dev/null),True)
$(info == $(VENV) is not usable: its Python does not run, is older than 3.11, or has no pip. Making it anew)
$(shell rm -rf $(VENV))
endif
endif

.PHONY: setup demo test check format fuzz chaos bench bench-planes bench-setup cost soak picture deploy-check compile clean
.DEFAULT_GOAL := help

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 16

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "No Python >= 3.11 found. Install one, or: make $(MAKECMDGOALS) PYTHON=/path/to/python3"; exit 1; }
	@echo "== Creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) && $@ -c 'import pip' || { rm -rf $(VENV); \
		echo "$$($(PYTHON) --version) cannot make $(VENV). Debian and Ubuntu keep what is missing in a package:"; \
		echo "apt-get install python3-venv. Then run make again, or name another Python: make $(MAKECMDGOALS) PYTHON=/path/to/python3"; \
		exit 1; }

# Never outside of $(VENV): a Python that the system manages (externally-managed-environment) is left alone.
NOT_INSTALLED = { echo "pip could not install this into $(VENV); its message is above. Is a package index reachable?"; \
	echo "Behind a mirror: export PIP_INDEX_URL=https://…. Then run make again; if it fails again, after make clean."; exit 1; }

$(VENV)/.gateway-installed: pyproject.toml | $(BIN)/python
	@echo "== Installing the gateway and what it needs into $(VENV) (first time only)"
	@$(BIN)/python -m pip install --quiet --editable '.[demo]' || $(NOT_INSTALLED)
	@touch $@

$(VENV)/.dev-installed: pyproject.toml | $(BIN)/python
	@echo "== Installing what tests and checks need into $(VENV) (first time only)"
	@$(BIN)/python -m pip install --quiet --editable '.[dev]' || $(NOT_INSTALLED)
	@touch $@ $(VENV)/.gateway-installed

$(VENV)/.release-installed: pyproject.toml | $(BIN)/python
	@echo "== Installing what a release needs into $(VENV) (first time only)"
	@$(BIN)/python -m pip install --quiet --editable '.[dev,release]' || $(NOT_INSTALLED)
	@touch $@ $(VENV)/.gateway-installed $(VENV)/.dev-installed

setup: $(VENV)/.dev-installed ## create .venv and install everything (done by the other targets when needed)
	@# Compiles the tests; hypothesis reads constants out of all that it finds imported, and keeps them.
	@$(BIN)/python -m pytest --quiet -k test_any_date_is_read_or_ignored >/dev/null || true

demo: $(VENV)/.gateway-installed ## the stand-in cloud and the gateway on loopback; prints curl lines that work
	@$(BIN)/modelarts-gateway demo $(DEMO_ARGS)

# Tests wait much of their time, so there may be more workers than processors.
WORKERS ?= 5
# Not even collected by `make test`: a whole Keystone, other proxies over a token's life.
HEAVY := tests/cloud/keystone tests/data_planes

test: $(VENV)/.dev-installed ## the test suite; one test at a time: TEST_ARGS=-n0
	@$(BIN)/python -m pytest -n $(WORKERS) -m "not long" $(HEAVY:%=--ignore=%) $(TEST_ARGS)

.PHONY: test-long
test-long: $(VENV)/.dev-installed ## what takes too long for `make test`: heavy suites, long forms of tests
	@LONG=1 $(BIN)/python -m pytest -n 3 -m long $(TEST_ARGS)

# What a request passes through, compiled from the same source. The tests run where that source is
# not, or they would import it.
COMPILED := .venv-compiled
COMPILED_SUITES ?= tests/unit tests/scenarios tests/exchange tests/cost
NOT_COMPILED := Makefile *.md llms.txt LICENSE NOTICE pyproject.toml config deploy tests .ci .dockerignore

# Built again when a file or a folder of the gateway has changed. All but the gateway is what $(VENV) has.
SOURCES := $(shell find gateway -name __pycache__ -prune -o -print)
PACKAGES := import sysconfig; print(sysconfig.get_path("purelib"))

$(COMPILED)/.installed: pyproject.toml $(SOURCES) | $(VENV)/.dev-installed
	@echo "== Compiling (about a minute)"
	@rm -rf $(COMPILED) && mkdir -p $(COMPILED)/source
	@cp -R pyproject.toml README.md LICENSE NOTICE config gateway $(COMPILED)/source
	@HATCH_BUILD_HOOK_ENABLE_MYPYC=1 $(BIN)/python -m pip wheel --quiet --no-deps \
		--wheel-dir $(COMPILED)/wheel $(COMPILED)/source
	@$(BIN)/python -m venv --without-pip $(COMPILED)
	@$(BIN)/python -m pip --python $(COMPILED)/bin/python install --quiet --no-deps $(COMPILED)/wheel/*.whl
	@$(BIN)/python -c '$(PACKAGES)' >"$$($(COMPILED)/bin/python -c '$(PACKAGES)')/packages.pth"
	@$(COMPILED)/bin/modelarts-gateway --version
	@touch $@

.PHONY: compiled
compiled: $(COMPILED)/.installed ## build the compiled wheel, and install it into .venv-compiled

compile: compiled ## the compiled build, and the suites that tell whether it behaves alike
	@rm -rf $(COMPILED)/project && mkdir $(COMPILED)/project
	@cp -R $(NOT_COMPILED) $(COMPILED)/project
	@cd $(COMPILED)/project && ../bin/python -m pytest -n $(WORKERS) $(COMPILED_SUITES) $(TEST_ARGS)
	@cd $(COMPILED)/project && ../bin/python -m tests.programs.fuzz $(FUZZ_ARGS)

check: $(VENV)/.dev-installed ## format, lint, types, generated documents
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/python -m tests.documents --check

format: $(VENV)/.dev-installed ## rewrite to the project's format; regenerate the documents
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .
	@$(BIN)/python -m tests.documents

fuzz: $(VENV)/.dev-installed ## 400 000 messages read by us and by llhttp; 40 000 more against a running gateway
	@$(BIN)/python -m tests.programs.fuzz $(FUZZ_ARGS)

chaos: $(VENV)/.dev-installed ## 200 000 exchanges with a service that behaves at random; none may go astray
	@$(BIN)/python -m tests.programs.chaos $(CHAOS_ARGS)

bench: $(VENV)/.dev-installed ## CPU, latency and memory beside other proxies (needs wrk)
	@$(BIN)/python -m tests.programs.bench $(BENCH_ARGS)
	@$(BIN)/python -m tests.programs.bench.overload $(OVERLOAD_ARGS)
	@$(BIN)/python -m tests.programs.bench.planes $(PLANES_ARGS)

bench-planes: $(VENV)/.dev-installed ## CPU per request of Envoy and nginx with our token; callers over TLS; the token endpoint
	@$(BIN)/python -m tests.programs.bench.planes $(PLANES_ARGS)

cost: $(VENV)/.dev-installed ## what one exchange costs, counted (needs valgrind and strace)
	@$(BIN)/python -m tests.cost $(COST_ARGS)

bench-setup: $(VENV)/.dev-installed ## install wrk and the proxies to compare with
	@$(BIN)/python -m tests.programs.bench setup

.PHONY: scenes
scenes: $(VENV)/.dev-installed ## attacks in memory cgroups of 256 and 128 MiB (needs root)
	@$(BIN)/python -m tests.programs.scenes $(SCENES_ARGS)

soak: $(VENV)/.dev-installed ## 10 minutes of mixed traffic and faults; nothing may leak or get lost
	@$(BIN)/python -m tests.programs.soak $(SOAK_ARGS)

picture: $(VENV)/.dev-installed ## the dashboard's picture, from a run with a real Prometheus (needs Debian's prometheus)
	@$(BIN)/python -m tests.programs.watch

# Made by deploy-check itself where they are missing; CI makes them while it waits for other things.
.PHONY: deploy-parts
deploy-parts: $(VENV)/.dev-installed
	@$(BIN)/python -m tests.programs.deploy.parts

deploy-check: $(VENV)/.dev-installed ## build, run and validate what deploy/ ships
	@$(BIN)/python -m pytest tests/programs/deploy $(TEST_ARGS)

# The compiled wheel is checked too where `make compiled` has built it.
.PHONY: release-check
release-check: $(VENV)/.release-installed ## build, check and try what a release uploads; nothing is uploaded
	@echo "== Building dist/: source, wheel, list of packages (SBOM)"
	@rm -rf dist $(VENV)/released
	@$(BIN)/python -m build --outdir dist . >/dev/null
	@cp $(wildcard $(COMPILED)/wheel/*.whl) dist/ 2>/dev/null || true
	@$(BIN)/twine check --strict dist/*
	@$(BIN)/python -m venv --without-pip $(VENV)/released
	@$(BIN)/python -m pip --python $(VENV)/released/bin/python install --quiet \
		"$$(ls dist/*-py3-none-any.whl)[fleet,otel]"
	@version=$$($(BIN)/python -c 'import gateway; print(gateway.__version__)') \
		&& sed "s/^dynamic = .*/version = \"$$version\"/" pyproject.toml >$(VENV)/released/pyproject.toml
	@$(BIN)/cyclonedx-py environment --pyproject $(VENV)/released/pyproject.toml --output-reproducible \
		--output-file dist/modelarts-gateway.cdx.json $(VENV)/released
	@$(BIN)/python -m pytest -n 0 tests/programs/release $(TEST_ARGS)

clean: ## remove what the targets above made
	rm -rf $(VENV) $(COMPILED) dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
