# Every target is one line of help; `make` alone prints them.
SHELL := /bin/bash
VENV ?= .venv
EXTRAS ?=
# Each with one thread: two threads a process would wait for each other on two cores.
TEST_PROCESSES ?= 2
# The first Python of a supported version; PYTHON=... chooses another. spconv has no wheel for 3.14.
NEWEST := $(if $(filter cuda,$(EXTRAS)),13,14)
SUPPORTED := -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, $(NEWEST)))' 2>/dev/null
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
  $$p $(SUPPORTED) && echo $$p && break; done)
LOCKS := requirements.lock $(foreach extra,$(EXTRAS),requirements-$(extra).lock)
STAMP := $(VENV)/.installed$(foreach extra,$(EXTRAS),-$(extra))
RUN := $(VENV)/bin/

# A GPU machine may have a torch of its own and no network: the Python that is named is then used as it is.
GPU_PYTHON := $(if $(filter file,$(origin PYTHON)),$(RUN)python,$(PYTHON))
GPU_NEEDS := $(if $(filter file,$(origin PYTHON)),install)
# Folder for what bench, bench-data and gpu-test write.
OUT ?= benchmarks/results

.DEFAULT_GOAL := help
.PHONY: help install demo test test-browser test-slow lint docs bench bench-data gpu-test docker lock clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

install: $(STAMP) ## set up .venv from the lock (EXTRAS=cuda adds spconv)

$(STAMP): $(LOCKS) pyproject.toml
	@test -x $(RUN)python || "$(PYTHON)" $(SUPPORTED) || { \
	  echo "error: no Python 3.11 to 3.$(NEWEST) found; name one with PYTHON=/path/to/python3.$(NEWEST)"; exit 1; }
	@test -x $(RUN)python || "$(PYTHON)" -m venv $(VENV)
	$(RUN)python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes $(addprefix -r ,$(LOCKS))
	$(RUN)python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: install ## run the main job on stand-in data; prints where the page is
	$(RUN)pipeline demo --out demo

test: install ## run the tests, TEST_PROCESSES at once (2 by default)
	OMP_NUM_THREADS=1 $(RUN)python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

test-browser: install ## look at the pages in chromium, which must be on the PATH
	@command -v chromium || command -v chromium-browser || command -v google-chrome || { \
	  echo "error: no chromium found on the PATH; install it, e.g. apt-get install chromium"; exit 1; }
	OMP_NUM_THREADS=1 $(RUN)python -m pytest -m browser

test-slow: install ## run the tests that take minutes
	$(RUN)python -m pytest -m slow

lint: install ## check format, style, types, the direction of imports and the Dockerfile
	$(RUN)ruff format --check .
	$(RUN)ruff check .
	$(RUN)mypy
	$(RUN)lint-imports --no-logo --no-cache
	$(RUN)hadolint Dockerfile

docs: install ## build the documentation as a site in site/; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(RUN)mkdocs build --strict

bench: install ## measure the models' speed side by side and write OUT/cpu.json
	$(RUN)python -m benchmarks bench --out "$(OUT)"

bench-data: install ## measure the data stages beside plain ways and write OUT/data-cpu.json
	$(RUN)python -m benchmarks bench-data --out "$(OUT)"

gpu-test: $(GPU_NEEDS) ## check and time all that needs a GPU; PYTHON=python3 uses that one as it is, without .venv
	"$(GPU_PYTHON)" -m benchmarks.gpu --out "$(OUT)"

docker: ## build the GPU image
	docker build --tag emotion-pipeline .

lock: ## write the lock files again (needs uv); pins that must be overridden stand in pyproject.toml
	uv pip compile pyproject.toml --extra dev --extra docs $(LOCK_FLAGS) -o requirements.lock
	@# A file that is there is kept to as far as it fits: so both locks agree on every shared pin.
	cp requirements.lock requirements-cuda.lock
	uv pip compile pyproject.toml --extra dev --extra docs --extra cuda $(LOCK_FLAGS) -o requirements-cuda.lock
	@# Only what the extra adds, so that no pin is written down twice.
	awk 'FNR == NR { if (/^[a-z]/) seen[$$1] = 1; next } /^[a-z]/ { keep = !($$1 in seen) } keep' \
	  requirements.lock requirements-cuda.lock > requirements-cuda.tmp && mv requirements-cuda.tmp requirements-cuda.lock

LOCK_FLAGS := --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
  --no-emit-index-url --no-header --no-annotate --quiet

clean: ## remove what demo and the tools wrote; .venv stays
	rm -rf demo site .pytest_cache .ruff_cache .mypy_cache .hypothesis
