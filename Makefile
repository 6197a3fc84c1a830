# `make help` lists what there is. PG_CONFIG=/path/to/pg_config chooses the PostgreSQL.

PG_CONFIG ?= $(shell scripts/pg-config)
FEATURE = pg$(shell $(PG_CONFIG) --version | sed -E 's/^[^0-9]*([0-9]+).*/\1/')

# rustup puts cargo where non-login shells do not look.
export PATH := $(PATH):$(HOME)/.cargo/bin

# The extension is only ever compiled with these: all its targets share one bindgen run.
EXTENSION = -p meshhook_secrets --release --no-default-features --features $(FEATURE)
WITH_PG = PG_CONFIG="$(PG_CONFIG)" PGRX_PG_CONFIG_PATH="$(PG_CONFIG)"
TESTS = -p meshhook_secrets_core -p meshhook_secrets_tests
# Those of others that some tests load beside ours.
EXTENSIONS = pg_cron pgaudit plpgsql_check

# Faults strike at moments that the model does not know to the microsecond: now and then it is the model that is wrong.
CHAOS = $(WITH_PG) cargo test -p meshhook_secrets_tests --test chaos

.DEFAULT_GOAL := help
.PHONY: $(shell sed -nE 's/^([a-z-]+):.*## .*/\1/p' Makefile) # all that are described

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps: ## install what building needs (apt, rustup components)
	@scripts/install-deps

all: build # what pgxn calls

build: deps ## build the extension's library
	$(WITH_PG) cargo build $(EXTENSION)

install: build ## install into PostgreSQL (asks sudo for the copying if it must); DESTDIR counts
	@if [ -n "$(DESTDIR)" ] || [ -w "$$($(PG_CONFIG) --pkglibdir)" ]; then \
	     $(WITH_PG) scripts/package "$(DESTDIR)"; \
	else sudo env $(WITH_PG) CARGO_TARGET_DIR="$$CARGO_TARGET_DIR" scripts/package; fi

package: build ## make an installable tree below DESTDIR (default: dist)
	@$(WITH_PG) scripts/package "$(or $(DESTDIR),dist)"

deb: build ## make a Debian package in dist/ for the PostgreSQL of PG_CONFIG
	@$(WITH_PG) scripts/deb

dist: ## make the archive for PGXN in dist/, of what is committed
	@scripts/dist

licences: deps ## write dist/THIRD-PARTY.txt and a bill of materials: what is linked into the library
	@$(WITH_PG) scripts/licences dist

test: lint test-core test-blackbox test-web ## everything: style, lints, core tests, black-box tests, web tests

lint: deps ## formatting and clippy, warnings are errors
	cargo fmt --all --check
	$(WITH_PG) cargo clippy $(EXTENSION) -- -D warnings
	cargo clippy $(TESTS) --all-targets --test chaos -- -D warnings
	rustfmt --check --edition 2024 fuzz/fuzz_targets/*.rs

fmt: ## format all Rust code
	cargo fmt --all
	rustfmt --edition 2024 fuzz/fuzz_targets/*.rs

test-core: deps ## the pure core: no server, seconds
	cargo test -p meshhook_secrets_core

test-blackbox: build ## real servers, real clients; T=name runs only tests of this name
	@scripts/install-deps gdb openssl faketime $(EXTENSIONS)
	@$(WITH_PG) scripts/released >/dev/null || [ $$? -eq 3 ] # without the history, its tests say so
	$(WITH_PG) cargo test -p meshhook_secrets_tests $(T)
	@[ -n "$(T)" ] || $(CHAOS) || { echo "chaos: once more. What two runs find is no matter of the moment of a fault"; $(CHAOS); }

# The older version's library is built beside the newer one's.
OLD_TARGET_DIR = $(shell realpath -m "$${CARGO_TARGET_DIR:-target}")/old
test-pg-upgrade: build ## pg_upgrade from an older PostgreSQL, OLD_PG_CONFIG=/path/to/its/pg_config, to that of PG_CONFIG
	@[ -n "$(OLD_PG_CONFIG)" ] || { echo "OLD_PG_CONFIG=/path/to/pg_config says which PostgreSQL to come from" >&2; exit 1; }
	CARGO_TARGET_DIR="$(OLD_TARGET_DIR)" $(MAKE) build PG_CONFIG="$(OLD_PG_CONFIG)"
	$(WITH_PG) OLD_PG_CONFIG="$(OLD_PG_CONFIG)" OLD_TARGET_DIR="$(OLD_TARGET_DIR)" \
	    cargo test -p meshhook_secrets_tests --test pg_upgrade $(T)

soak: build ## random calls and faults beside a model, one seed after the other, for MINUTES=20
	@scripts/install-deps faketime
	CHAOS_MINUTES=$(or $(MINUTES),20) CHAOS_STEPS=$(or $(STEPS),900) $(WITH_PG) \
	    cargo test -p meshhook_secrets_tests --test chaos -- --nocapture a_random_seed a_clock_that_jumps

test-web: build ## the examples: supabase-js, edge functions, the web page in Chromium; T=file runs only that one
	@[ -n "$$CHROMIUM" ] || scripts/install-deps chromium
	@$(WITH_PG) scripts/with-node tests/web/run $(T)

test-deb: deb ## the package on a bare Debian: install, upgrade, remove, purge; as root, takes some minutes
	@$(WITH_PG) tests/package/run

test-matrix: ## the black-box tests on PostgreSQL 15 to 18, VERSIONS="17 18" on these; as root, takes an hour
	@tests/matrix $(VERSIONS)

demo: build ## start the demo and say where it is
	@$(WITH_PG) demo/run

demo-stop: ## stop the demo and remove its files
	@demo/stop; demo/stop --quiet .demo-web

web: build ## start database, API gateway and the example's web page, and say where; Ctrl-C stops it all
	@$(WITH_PG) scripts/with-node demo/web/run

bench: bench-audit bench-rotation ## all benchmarks; OPTIONS=--quick

bench-audit: build ## measure reveals with and without audit records
	@$(WITH_PG) bench/audit $(OPTIONS)

bench-rotation: build ## measure rotations of the KEK against plain UPDATEs; OPTIONS=--quick takes a minute
	@$(WITH_PG) bench/rotation $(OPTIONS)

fuzz: ## fuzz the core, each target for SECONDS_EACH (60); T="lines values" only these
	@scripts/fuzz $(T)

memcheck: build ## a walk through everything on a server under valgrind: some minutes; T="TEST FILTER" another test
	@$(WITH_PG) scripts/memcheck $(T)

load: build ## MINUTES=10 of load through pgbouncer: what leaks, grows, gets lost? RATE=1000 transactions a second
	@$(WITH_PG) bench/load $(MINUTES)

clean: ## remove everything built
	cargo clean
	rm -rf dist fuzz/target
