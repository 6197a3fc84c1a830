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

.DEFAULT_GOAL := help
.PHONY: help deps build install package test lint fmt test-core test-blackbox test-web test-matrix demo demo-stop web bench bench-audit bench-rotation load clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps: ## install what building needs (apt, rustup components)
	@scripts/install-deps

build: deps ## build the extension's library
	$(WITH_PG) cargo build $(EXTENSION)

install: build ## install into PostgreSQL (asks sudo for the copying if it must); DESTDIR counts
	@if [ -n "$(DESTDIR)" ] || [ -w "$$($(PG_CONFIG) --pkglibdir)" ]; then \
	     $(WITH_PG) scripts/package "$(DESTDIR)"; \
	else sudo env $(WITH_PG) CARGO_TARGET_DIR="$$CARGO_TARGET_DIR" scripts/package; fi

package: build ## make an installable tree below DESTDIR (default: dist)
	@$(WITH_PG) scripts/package "$(or $(DESTDIR),dist)"

test: lint test-core test-blackbox test-web ## everything: style, lints, core tests, black-box tests, web tests

lint: deps ## formatting and clippy, warnings are errors
	cargo fmt --all --check
	$(WITH_PG) cargo clippy $(EXTENSION) -- -D warnings
	cargo clippy $(TESTS) --all-targets -- -D warnings

fmt: ## format all Rust code
	cargo fmt --all

test-core: deps ## the pure core: no server, seconds
	cargo test -p meshhook_secrets_core

test-blackbox: build ## real servers, real clients; T=name runs only tests of this name
	@scripts/install-deps gdb openssl $(EXTENSIONS)
	$(WITH_PG) cargo test -p meshhook_secrets_tests $(T)

test-web: build ## the examples: supabase-js, edge functions, the web page in Chromium; T=file runs only that one
	@[ -n "$$CHROMIUM" ] || scripts/install-deps chromium
	@$(WITH_PG) scripts/with-node tests/web/run $(T)

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

load: build ## MINUTES=10 of load through pgbouncer: what leaks, grows, gets lost? RATE=1000 transactions a second
	@$(WITH_PG) bench/load $(MINUTES)

clean: ## remove everything built
	cargo clean
	rm -rf dist
