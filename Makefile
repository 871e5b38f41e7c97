# Targets: see `make help`. Each installs what it needs into $(BULK_CACHE), outside the checkout; Debian packages take root or sudo.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory
.PHONY: help always pg-config demo test lint bench fuzz fresh radosgw build install uninstall definitions data

# User postgres must be able to read it, so for root it is not below /root.
export BULK_CACHE ?= $(if $(filter 0,$(shell id -u)),/var/cache/bulk,$(HOME)/.cache/bulk)
export CARGO_TARGET_DIR ?= $(BULK_CACHE)/target

help:
	@echo 'make demo                      the whole thread on real data, in a throw-away cluster; with HTTP=1 behind an HTTP gateway'
	@echo 'make test [TEST=part]          all tests, or those with this part in their name, on PostgreSQL 15 to 18'
	@echo 'make install PG_CONFIG=path    builds the extension and copies it into that PostgreSQL; DESTDIR=directory for packagers'
	@echo 'make uninstall PG_CONFIG=path  removes it again'
	@echo 'make build PG_CONFIG=path      only builds'
	@echo 'make bench [BENCH=options]     measures it beside COPY; BENCH=--help shows the options'
	@echo 'make lint                      rustfmt, clippy, order of the rooms, signatures of the server'
	@echo 'make fresh                     demo and a test on a bare Debian 12, in a chroot; takes root'
	@echo 'make fuzz                      each fuzz target for FUZZ_SECONDS'
	@echo 'make radosgw                   the suite of object stores against Ceph'
	@echo 'make definitions               the tables of FHIR facts, from the official definitions'
	@echo 'make data                      examples/data, from the official examples'

# --- Building and installing, for any PostgreSQL that has its headers ---

PG_CONFIG ?= pg_config
PROFILE ?= release
# Evaluated where they are used: most targets have no PG_CONFIG.
PG_VERSION = $(shell '$(PG_CONFIG)' --version 2>/dev/null | sed -nE 's/^PostgreSQL ([0-9]+)(\.[0-9]+)?.*/\1\2/p')
PG_MAJOR = $(firstword $(subst ., ,$(PG_VERSION)))
SQL_VERSION := $(shell sed -nE "s/^default_version = '(.*)'/\1/p" bulk.control)
SQL := $(sort $(wildcard sql/install/*.sql))
# One library for each set of headers.
LIBRARY = $(CARGO_TARGET_DIR)/$(PROFILE)/pg$(PG_VERSION)-$(shell '$(PG_CONFIG)' --includedir-server | cksum | cut -d' ' -f1)/bulk.so
SCRIPT = $(CARGO_TARGET_DIR)/sql/bulk--$(SQL_VERSION).sql

pg-config:
	@test -n '$(PG_VERSION)' || { echo 'no PostgreSQL at PG_CONFIG=$(PG_CONFIG): name the pg_config of the server, as in make $(or $(MAKECMDGOALS),build) PG_CONFIG=/usr/lib/postgresql/15/bin/pg_config' >&2; exit 2; }

build: pg-config
	@test -e "$$('$(PG_CONFIG)' --includedir-server)/postgres.h" || { echo "the headers of PostgreSQL $(PG_VERSION) are missing in $$('$(PG_CONFIG)' --includedir-server): in Debian, install postgresql-server-dev-$(PG_MAJOR)" >&2; exit 2; }
	@$(MAKE) '$(LIBRARY)' '$(SCRIPT)'

# Cargo gives the libraries for all versions of PostgreSQL one name and takes whichever lies there for its own, so it must not find any.
$(CARGO_TARGET_DIR)/$(PROFILE)/pg%/bulk.so: Cargo.toml Cargo.lock build.rs bulk.control $(SQL) $(shell find src -type f)
	@scripts/provision.sh rust
	@mkdir -p '$(@D)'
	exec 9>'$(CARGO_TARGET_DIR)/bulk.lock' && flock 9 && rm -f '$(CARGO_TARGET_DIR)/$(PROFILE)'/{,deps/}libbulk.so && \
		scripts/cargo.sh '$(PG_CONFIG)' build --lib --profile $(PROFILE) 9>&- && \
		cp '$(CARGO_TARGET_DIR)/$(PROFILE)/libbulk.so' '$@.new' && mv '$@.new' '$@'

# The script of a version is the files of sql/install in the order of their names, and nothing else.
$(CARGO_TARGET_DIR)/sql/bulk--$(SQL_VERSION).sql: always
	@mkdir -p '$(@D)'
	@cat $(SQL) >'$@.new' && mv '$@.new' '$@'

install: build
	scripts/install.sh install '$(PG_CONFIG)' '$(LIBRARY)' bulk.control '$(SCRIPT)' $(wildcard sql/upgrade/*.sql)

uninstall: pg-config
	scripts/install.sh uninstall '$(PG_CONFIG)'

# --- What people run ---

PG15 := $(BULK_CACHE)/pg15/lib/postgresql/15/bin
# The gateway is a crate of its own.
GATEWAY := $(BULK_CACHE)/target/gateway
gateway = CARGO_TARGET_DIR='$(GATEWAY)' cargo build --locked --manifest-path examples/gateway/Cargo.toml --profile

demo:
	@scripts/provision.sh build pg15 $(if $(HTTP),nginx)
	@$(MAKE) install PG_CONFIG='$(PG15)/pg_config' PROFILE=quick
	$(if $(HTTP),@$(gateway) quick)
	@BULK_GATEWAY='$(GATEWAY)/quick/bulk-gateway' scripts/demo.sh '$(PG15)' $(if $(HTTP),http)

test: export TEST := $(TEST)
test:
	@scripts/test.sh "$$TEST"

lint:
	scripts/lint.sh

# make bench BENCH='--only load --rounds 3', '--json', '--chart NAME': see bench/__main__.py.
bench:
	@scripts/provision.sh build pg15 bench stores nginx
	@$(MAKE) install PG_CONFIG='$(PG15)/pg_config'
	@$(gateway) release
	PATH="$(BULK_CACHE)/bench/bin:$$PATH" BULK_GATEWAY='$(GATEWAY)/release/bulk-gateway' python3 bench '$(PG15)' $(BENCH)

# What a machine without anything lacks shows here.
fresh:
	@scripts/provision.sh fresh rust
	scripts/fresh.sh

# Each fuzz target for so many seconds. The corpus grows in the cache; what was found lands in $(BULK_CACHE)/fuzz/artifacts.
FUZZ_SECONDS ?= 600
fuzz: export RUSTC_BOOTSTRAP = 1
fuzz: export CARGO_TARGET_DIR = $(BULK_CACHE)/fuzz-target
fuzz: export PATH := $(BULK_CACHE)/cargo-fuzz/bin:$(PATH)
fuzz:
	scripts/provision.sh fuzz
	for target in encode decode convert pglz; do \
		mkdir -p $(BULK_CACHE)/fuzz/corpus/$$target $(BULK_CACHE)/fuzz/artifacts; \
		cargo fuzz run $$target $(BULK_CACHE)/fuzz/corpus/$$target -- \
			-max_total_time=$(FUZZ_SECONDS) -max_len=4096 -artifact_prefix=$(BULK_CACHE)/fuzz/artifacts/$$target-; \
	done

# The stores' suite against Ceph's gateway, a real S3 server that is too large for every run. Takes Debian's packages.
radosgw:
	scripts/provision.sh build pg15 radosgw
	scripts/cargo.sh '$(PG15)/pg_config' test --lib --no-run
	scripts/radosgw.sh scripts/cargo.sh '$(PG15)/pg_config' test --lib another_s3

# Makes the tables of FHIR facts again from the official definitions.
definitions:
	scripts/provision.sh examples
	python3 scripts/definitions.py $(BULK_CACHE)/examples/package 4.0.1 src/fhir/definitions/r4.txt
	python3 scripts/search.py $(BULK_CACHE)/examples/package src/fhir/definitions/r4.txt src/fhir/definitions/r4-search.txt

# Makes the demo's data again from the official examples.
data:
	scripts/provision.sh examples
	python3 scripts/examples.py $(BULK_CACHE)/examples/package --types examples/data
