# The commands of Tokenworks. Each sets up what it needs in .venv, from python3 (3.11 or newer) and
# make alone; what is there already is not done again.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
STACKS_INSTALLED := .venv/stacks-installed
LITELLM := .venv-litellm
LITELLM_INSTALLED := $(LITELLM)/installed
# More words for pytest: make test ARGS="-k accounts"
ARGS ?=
# Processes that share the tests, a file's tests in one; 0 for none beside pytest, as a debugger
# needs it. One more than two cores: a third of the time a test waits for a server.
JOBS ?= 3
SHARED := -n $(JOBS) --dist loadfile

# Empty, whatever it was: modules are compiled once, not by each of the hundreds of processes that
# the tests start.
export PYTHONDONTWRITEBYTECODE :=

# The oldest Postgres that is supported; the embedded one is the newest.
PG_OLDEST := /usr/lib/postgresql/15/bin
TOUCHING_SQL := tests/meter/store tests/wire tests/cli/test_db.py \
  tests/billing/store tests/billing/test_closing.py tests/billing/test_corrections.py \
  tests/billing/test_auditing.py tests/billing/wire tests/cli/test_doctor.py
PROTOS := $(shell cd proto && find tokenworks -name '*.proto' | sort)

.PHONY: help
help: ## Print this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: install
install: $(INSTALLED) ## Set up .venv with everything that the other targets need

$(INSTALLED): constraints.txt pyproject.toml sdk/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --require-hashes -r constraints.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e sdk -e .
	@touch $@

.PHONY: demo
demo: $(INSTALLED) ## Live through a month of a simulated factory, and check every token and cent
	$(BIN)/tokenworks demo --out build/demo $(ARGS)

.PHONY: test
test: $(INSTALLED) ## Run the tests that need nothing but .venv (Postgres comes with it)
	$(BIN)/pytest -m "not stacks" $(SHARED) $(ARGS)

.PHONY: test-stacks
test-stacks: stacks ## Run the tests against heavy real components, and install those
	$(BIN)/pytest -m stacks $(SHARED) $(ARGS)
	TOKENWORKS_TEST_PG_BIN=$(PG_OLDEST) \
	  $(BIN)/pytest -m "not stacks" $(SHARED) $(TOUCHING_SQL) $(ARGS)

.PHONY: stacks
stacks: $(STACKS_INSTALLED) $(LITELLM_INSTALLED) ## Set up what test-stacks needs beside .venv; as root, with apt
	@missing=(); \
	test -x $(PG_OLDEST)/initdb || missing+=(postgresql-15); \
	command -v node >/dev/null || missing+=(nodejs); \
	command -v npm >/dev/null || missing+=(npm); \
	command -v promtool >/dev/null || missing+=(prometheus); \
	command -v chromium >/dev/null || missing+=(chromium); \
	command -v pdftotext >/dev/null || missing+=(poppler-utils); \
	command -v patroni >/dev/null || missing+=(patroni); \
	command -v etcd >/dev/null || missing+=(etcd-server); \
	command -v pgbouncer >/dev/null || missing+=(pgbouncer); \
	command -v redis-server >/dev/null || missing+=(redis-server); \
	test -e /usr/share/fonts/truetype/liberation/LiberationSans-Regular.ttf \
	  || missing+=(fonts-liberation); \
	test -e /usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc || missing+=(fonts-noto-cjk); \
	if [ $${#missing[@]} -eq 0 ]; then exit 0; fi; \
	if [ "$$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then \
	  echo "make test-stacks needs this, which only root can install: $${missing[*]}" >&2; exit 1; \
	fi; \
	apt-get update -qq; \
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	  "$${missing[@]}" </dev/null

$(STACKS_INSTALLED): constraints-stacks.txt $(INSTALLED)
	$(BIN)/python -m pip install --quiet --require-hashes -r constraints-stacks.txt
	@touch $@

# LiteLLM's proxy, which wants versions of its own of what we have, too.
$(LITELLM_INSTALLED): constraints-litellm.txt sdk/pyproject.toml
	test -x $(LITELLM)/bin/python || $(PYTHON) -m venv $(LITELLM)
	$(LITELLM)/bin/python -m pip install --quiet --require-hashes -r constraints-litellm.txt
	$(LITELLM)/bin/python -m pip install --quiet --no-deps --no-build-isolation -e sdk
	@touch $@

.PHONY: lint
lint: $(INSTALLED) ## Check form, types, layers, the wire's contract and generated files
	@failed=0; check() { echo "$$*"; "$$@" || failed=1; }; \
	check $(BIN)/ruff check .; \
	check $(BIN)/ruff format --check .; \
	check $(BIN)/mypy; \
	check $(BIN)/lint-imports; \
	check $(BIN)/buf lint proto; \
	check $(MAKE) --no-print-directory breaking; \
	check $(MAKE) --no-print-directory generated; \
	check $(BIN)/python -m helm.dashboards --check; \
	exit $$failed

# Compares the contract with the newest release; before there is one, with where this branch began.
.PHONY: breaking
breaking: $(INSTALLED)
	@base=$$(git describe --tags --abbrev=0 --match 'v*' HEAD^ 2>/dev/null \
	  || git merge-base HEAD origin/main 2>/dev/null || true); \
	if [ -z "$$base" ] || [ "$$base" = "$$(git rev-parse HEAD)" ]; then \
	  base=$$(git rev-parse --quiet --verify HEAD^ || true); \
	fi; \
	if [ -z "$$base" ] || ! git cat-file -e "$$base:proto/buf.yaml" 2>/dev/null; then \
	  echo "buf breaking: not run, no earlier commit with a contract to compare with"; exit 0; \
	fi; \
	echo "buf breaking: against $$base"; \
	$(BIN)/buf breaking proto --against ".git#ref=$$base,subdir=proto"

.PHONY: generated
generated: $(INSTALLED)
	@fresh=$$(mktemp -d); trap 'rm -rf "$$fresh"' EXIT; \
	$(MAKE) --no-print-directory generate STUBS="$$fresh"; \
	for name in $$(cd "$$fresh" && find . -type f) \
	  $$(cd sdk && find tokenworks/meter tokenworks/billing tokenworks/foreign -name '*_pb2*.py*' -not -path '*/__pycache__/*'); do \
	  cmp "$$fresh/$$name" "sdk/$$name" \
	    || { echo "generated code is not fresh: make generate" >&2; exit 1; }; \
	done

STUBS := sdk
.PHONY: generate
generate: $(INSTALLED) ## Make the gRPC stubs anew from proto/
	@PATH="$$PWD/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -I proto \
	  --python_out=$(STUBS) --grpc_python_out=$(STUBS) \
	  --mypy_out=quiet:$(STUBS) --mypy_grpc_out=quiet:$(STUBS) $(PROTOS)

.PHONY: docs
docs: $(INSTALLED) ## Make the pages of docs/reference/ that come from the code
	$(BIN)/python docs/generate.py

.PHONY: dashboards
dashboards: $(INSTALLED) ## Make the Grafana dashboards of the chart from helm/dashboards/
	$(BIN)/python -m helm.dashboards

.PHONY: pictures
pictures: stacks ## Draw the pictures of the dashboards and invoices anew, from what is made up
	$(BIN)/python -m tests.stacks.pictures
	$(BIN)/python -m tests.stacks.papers

# The second set holds only what `stacks` adds to the first, in versions that agree with it; the
# third only what the image needs, of the first.
RESOLVE := $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 \
  --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-header
.PHONY: constraints
constraints: $(INSTALLED) ## Resolve the dependencies anew into constraints*.txt
	$(BIN)/python -m pip install --quiet uv
	$(RESOLVE) pyproject.toml --extra dev --no-emit-package tokenworks-client \
	  --output-file constraints.txt
	$(BIN)/python -c 'import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
	  print(*project["optional-dependencies"]["stacks"], sep="\n")' \
	  | $(RESOLVE) - --constraint constraints.txt --output-file constraints-stacks.txt
	$(BIN)/python -c 'import tomllib; project = tomllib.load(open("pyproject.toml", "rb")); \
	  print(*project["dependency-groups"]["litellm"], sep="\n")' \
	  | $(RESOLVE) - --output-file constraints-litellm.txt
	echo hatchling | $(RESOLVE) pyproject.toml - --extra parquet --extra nvml --extra otel \
	  --no-emit-package tokenworks-client --constraint constraints.txt \
	  --output-file constraints-image.txt

.PHONY: bench
bench: $(INSTALLED) ## Measure, at smoke sizes, into build/bench.json
	$(BIN)/python -m benchmarks $(ARGS)

.PHONY: faults
faults: $(INSTALLED) ## Make faults under load, and account for every event; SOAK=1: half an hour of chaos
	$(BIN)/python -m $(if $(SOAK),tests.faults.soak $(if $(SECONDS),--seconds $(SECONDS)),tests.faults) $(ARGS)

.PHONY: audit
audit: stacks ## List what is installed, into build/sbom.json, and what of it is known to be weak
	bash .ci/audit

.PHONY: mutants
mutants: $(INSTALLED) ## Take each guarantee's protections away, one by one, and see a test turn red
	$(BIN)/python -m tests.mutants $(ARGS)

.PHONY: ci
ci: ## Run what the build server runs
	bash .ci/run
