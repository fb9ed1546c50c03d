# One verb a check; .ci/run calls only `lint` and `test`. Every verb makes what it needs itself:
# a virtual environment in .venv, the extension module, and, where it may, Debian's load tools.
#
#   build lint test          the daily three        demo    the example server, loaded, on each loop
#   programs                 real programs and servers, unchanged, at full size
#   conformance              every loop by one law  matrix  build and test on every CPython found
#   bench fuzz soak          longer runs            stubs   check the .pyi files against the modules
#   wheel                    a wheel into dist/     oracle  our Python tests on upstream gevent
#   faults                   system calls, memory, clients and signals that go wrong on purpose
#   sdist                    a source distribution into dist/, installed and used from there
#   cross                    type-check all below the binding for macOS and the BSDs

PYTHON ?= python3
PROFILE ?= release
JOBS ?= 2
VENV := $(CURDIR)/.venv
PY := $(VENV)/bin/python
# Stretches every time limit on a slow machine: make test TIME_SCALE=2
TIME_SCALE ?= 1

export PYO3_PYTHON := $(PY)
export VIRTUAL_ENV := $(VENV)
export PYTHONFAULTHANDLER := 1
export TIME_SCALE
unexport PYTHONHOME

RUST_SOURCES := $(shell find crates -name '*.rs' -o -name '*.c' -o -name '*.h' -o -name Cargo.toml)
# What the real programs of tests/programs talk to: command, and package if that is another name.
SERVERS := redis-server pg_ctlcluster:postgresql mariadbd:mariadb-server nginx:nginx-light ab:apache2-utils
WHEEL_DATA := $(shell find python/wheel-data -type f 2>/dev/null)

.PHONY: all build lint test programs conformance bench fuzz soak matrix demo stubs wheel sdist oracle cross faults venv format clean

all: build

venv: $(VENV)/.ready

$(VENV)/.ready: tools/requirements.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; \
	  sys.exit(v < (3, 10) and "CPython 3.10 or newer is needed; PYTHON=... names one")'
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -r tools/requirements.txt
	touch $@

build: $(VENV)/.built-$(PROFILE)

# The Python files are used where they lie; only Rust, the shim and the wheel's own files need a build.
$(VENV)/.built-$(PROFILE): $(VENV)/.ready Cargo.toml Cargo.lock pyproject.toml $(RUST_SOURCES) $(WHEEL_DATA)
	$(VENV)/bin/maturin develop --quiet --locked --profile $(PROFILE) >$(VENV)/build.log 2>&1 \
	  || { cat $(VENV)/build.log; exit 1; }
	rm -f $(VENV)/.built-*
	$(PY) tools/c_api.py
	touch $@

wheel: $(VENV)/.ready
	$(VENV)/bin/maturin build --quiet --locked --release --interpreter $(PY) --out dist

sdist: $(VENV)/.ready
	$(PY) tools/sdist.py

lint: $(VENV)/.ready
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked --quiet -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --quiet
	$(VENV)/bin/ruff check --quiet .
	$(PY) tools/lint.py
	$(PY) tools/notices.py --check
	$(PY) tools/c_api.py

format: $(VENV)/.ready
	cargo fmt --all
	$(VENV)/bin/ruff check --quiet --fix .

test: build
	@tools/setup.sh $(SERVERS)
	$(PY) tools/ladder.py --jobs $(JOBS)

programs: build
	@tools/setup.sh $(SERVERS)
	$(PY) tools/programs.py

conformance: build
	$(PY) tools/ladder.py --jobs $(JOBS) conformance models upstream

oracle: $(VENV)/.ready
	$(PY) tools/oracle.py --jobs $(JOBS)

demo: build
	@tools/setup.sh curl wrk
	$(PY) tools/demo.py $(if $(LOOPS),--loops $(LOOPS))

bench: build
	@tools/setup.sh wrk strace $(SERVERS)
	$(PY) tools/bench.py
	$(PY) tools/bench_echo.py
	$(PY) tools/bench_wsgi.py
	$(PY) tools/bench_programs.py

fuzz: build
	$(PY) tools/fuzz.py

faults: build
	@tools/setup.sh cc:gcc python3-dbg
	$(PY) tools/faults/run.py $(if $(LOOPS),--loops $(LOOPS)) $(PARTS)

soak: build
	$(PY) tools/soak.py

cross: $(VENV)/.ready
	$(PY) tools/cross.py

matrix: $(VENV)/.ready
	$(PY) tools/matrix.py $(VERSIONS)

stubs: build
	$(PY) tools/stubs.py

clean:
	cargo clean
	rm -rf $(VENV) $(VENV)-programs dist
