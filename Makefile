# Everything happens in .venv, which is made on first use and again when setup.cfg or pyproject.toml change.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
CHECKED := compass tests examples bench
ONCE ?=
ARGS ?=
# Two processes need two cores; on one, or to see output as it comes: JOBS=0.
JOBS ?= 2

# Every target that help lists is a name and no file.
.PHONY: $(shell sed -n 's/^\([a-z][a-z-]*\):.*\#\#.*/\1/p' $(firstword $(MAKEFILE_LIST)))

help:  ## list the targets
	@sed -n 's/^\([a-z][a-z-]*\):.*##  *\(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

run: $(READY)  ## play the example scene (ONCE=1: once through, then end)
	@$(BIN)/python -m examples.scene $(if $(filter 1,$(ONCE)),--once)

console: $(READY)  ## run a small deployment for a look at the console in a browser (prints the address and a token)
	@$(BIN)/python -m examples.scene --console

screenshots: $(READY)  ## take the console's screenshots for the documents, and all others into build/console (needs chromium)
	@$(BIN)/python -m tests.console.screenshots $(ARGS)

PYTEST := -m pytest --numprocesses $(JOBS) --dist loadfile

test: check  ## run check, then the tests (ARGS="tests/test_layers.py -k name" selects; JOBS=0: one process)
	$(BIN)/python $(PYTEST) $(if $(ALL),,-m 'not long') $(ARGS)

coverage: $(READY)  ## run the tests, with the branches that each process of them reached (twice as slow; less than 94 % fails)
	@rm -f .coverage .coverage.*
	$(BIN)/python -m coverage run $(PYTEST) $(if $(ALL),,-m 'not long') $(ARGS)
	@$(BIN)/python -m coverage combine --quiet
	@$(BIN)/python -m coverage report $(if $(strip $(ARGS)),--fail-under=0)

test-all:  ## run make test and the tests that take a minute each: upgrades, failover, two writers, store outages
	@$(MAKE) --no-print-directory test ALL=1

check: $(READY)  ## run ruff and mypy --strict, and no test
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy --strict $(CHECKED)

simulate: $(READY)  ## random campaigns on virtual time (SEEDS=2000 JOBS=2; ARGS="--seed 7": one with its trace; ARGS="--digest": a hash)
	@$(BIN)/python -m tests.simulation --seeds $(or $(SEEDS),100) --jobs $(or $(JOBS),2) --write build $(ARGS)

language: $(READY)  ## docstrings, banned words and messages per package, beside h11 and websockets (ARGS="--list server")
	@$(BIN)/python -m tests.style.language $(ARGS)

shape: $(READY)  ## lines, constructors, callables and folders of compass, beside their limits
	@$(BIN)/python -m tests.style.shape

tree: $(READY)  ## circles of files and folders, and terms of the field that find no file (ARGS=--folders: who imports whom)
	@$(BIN)/python -m tests.style.tree $(ARGS)

walks: $(READY)  ## calls, files and moves on the way of a registration, a failure, a lookup (ARGS="--calls registration")
	@$(BIN)/python -m tests.style.walks $(ARGS)

storm: $(READY)  ## run storms of hosts, and a host that does not read, on real processes (ARGS="--hosts 500")
	@$(BIN)/python -m tests.storm $(ARGS)

storm-large: $(READY)  ## load a view at the bounds on real processes: time, memory, latency of others (ARGS="--listeners 100000")
	@$(BIN)/python -m tests.storm.large $(ARGS)

bench: $(READY)  ## measure compass and etcd, ZooKeeper, Redis and NATS in one run, under 20 minutes (ARGS="--only B1 B2")
	@$(BIN)/python -m bench --json bench/results.json $(ARGS)

bench-quick: $(READY)  ## measure in under two minutes, with the peers that are installed
	@$(BIN)/python -m bench --quick $(ARGS)

bench-page: $(READY)  ## write the pages of the benchmarks and their plots from bench/results.json
	@$(BIN)/python -m bench.page

dns-load: $(READY)  ## measure DNS answers and dnsmasq's, by dnsperf and one by one, and after kills (ARGS="--queries 10000")
	@$(BIN)/python -m bench.dns $(ARGS)

fuzz-long: $(READY)  ## send ten million fuzzed frames, and a million HTTP requests to a host and to a server (ARGS="--frames 1000 --seed 7")
	$(BIN)/python -m tests.fuzz $(if $(strip $(ARGS)),$(ARGS),--frames 10000000 --http 1000000 --https 1000000)

fuzz-dns: $(READY)  ## send a million fuzzed DNS packets (ARGS="--dns 10000 --seed 7")
	$(BIN)/python -m tests.fuzz $(if $(strip $(ARGS)),$(ARGS),--dns 1000000)

fuzz: $(READY)  ## fuzz by coverage; needs atheris (TARGET=frames|topology|config|cache|book SECONDS=60)
	@mkdir -p build/fuzz
	@cd build/fuzz && PYTHONPATH=$(CURDIR) $(CURDIR)/$(BIN)/python -m tests.fuzz.coverage_guided $(or $(TARGET),frames) $(or $(SECONDS),60)

api-check: $(READY)  ## run schemathesis against both HTTP APIs of real daemons (ARGS="--examples 500 --api server")
	$(BIN)/python -m tests.apicheck $(ARGS)

faults: $(READY)  ## kill real processes under load and check every observation (some minutes)
	$(BIN)/python -m tests.faults.killed_listeners
	$(BIN)/python -m tests.faults.killed_servers

alerting: $(READY)  ## kill daemons in front of a real Prometheus and Alertmanager; rules fire, are notified and resolve (90 s)
	@$(BIN)/python -m tests.faults.alerting

engines: $(READY)  ## run the tests of store and server on SQLite and on PostgreSQL
	@COMPASS_ENGINES=sqlite,postgresql $(BIN)/python -m pytest tests/store tests/server tests/cluster $(ARGS)

servers: $(READY)  ## measure writes to two servers at once against writes to one, on both engines (ARGS="--seconds 10")
	@$(BIN)/python -m tests.cluster.writers $(ARGS)

away: $(READY)  ## make the database unavailable for a minute in four ways (ARGS="--seconds 10 --ways frozen")
	@$(BIN)/python -m tests.faults.store_outage $(ARGS)
bench-workers: $(READY)  ## measure two workers against one: registrations and pulls a second, as ratios (ARGS="--seconds 10")
	@$(BIN)/python -m bench.workers $(ARGS)

balancers: $(READY)  ## run HAProxy and nginx under load while listeners register and deregister (ARGS="--rounds 3 --only nginx")
	@$(BIN)/python -m tests.e2e.balancers $(ARGS)

failover: $(READY)  ## kill the primary database, and a server of three, under load (ARGS="--rounds 10 --only server")
	@$(BIN)/python -m tests.faults.failover $(ARGS)

man: $(READY)  ## write manual pages, completions and generated reference pages, after a change of options or help
	@$(BIN)/python contrib/make_pages.py
	@$(BIN)/python contrib/make_reference.py

wheel: $(READY)  ## build the wheel and the source archive into dist/
	@rm -rf build/lib dist
	@$(BIN)/python -m build --outdir dist . >build.log 2>&1 || { cat build.log; exit 1; }
	@rm -f build.log
	@ls dist

wheel-check: wheel  ## install the wheel into an empty environment and type the tutorial and README there
	@$(BIN)/python -m tests.docs.typing docs/tutorial.md README.md --wheel dist/*.whl

image-check: $(READY)  ## build both container images with buildah and run them (root, Debian's buildah and mmdebstrap; some minutes)
	@$(BIN)/python -m tests.packaging.image

docs-rewrite: $(READY)  ## run the examples of README and tutorials and record their output (ARGS="README.md": only these)
	@$(BIN)/python -m tests.docs.typing $(or $(ARGS),README.md README.zh.md docs/tutorial.md docs/tutorial.zh.md) --rewrite

site: $(READY)  ## build the documents as a site in build/site
	@$(PIP) install 'mkdocs>=1.6,<2'
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet && echo build/site/index.html

clean:  ## remove .venv and everything else that make wrote
	rm -rf $(VENV) build dist *.egg-info .coverage .coverage.* htmlcov .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A python counts when it runs, is new enough, and can make an environment (Debian splits that part off).
$(READY): setup.cfg pyproject.toml
	@for python in "$(PYTHON)" python3 python3.13 python3.12 python3.11; do \
		[ -n "$$python" ] || continue; \
		"$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
		echo "Making $(VENV) with $$("$$python" --version), $$(command -v "$$python")"; \
		exec "$$python" -m venv --clear $(VENV); \
	done; \
	echo "No Python 3.11 or newer with the venv module was found." >&2; \
	echo "Install one (Debian, Ubuntu: apt-get install python3 python3-venv), or name it: make PYTHON=/path/to/python3" >&2; \
	exit 1
	@echo "Installing compass and what it is developed with (from the package index; a minute or two)"
	@PIP_ROOT_USER_ACTION=ignore $(PIP) install --editable '.[dev]'
	@touch $@
