#!/usr/bin/env bash
# Cargo for one PostgreSQL: cargo.sh PG_CONFIG SUBCOMMAND ARGUMENT... adds its feature, and where its headers are.
set -euo pipefail

pg_config=$(realpath "$(command -v "$1")")
version=$("$pg_config" --version | sed -nE 's/^PostgreSQL ([0-9]+(\.[0-9]+)?).*/\1/p')
# Of the headers pgrx's build notices only by which pg_config it knows them: one of a name with their version makes it read them again
# after an update.
place="${CARGO_TARGET_DIR:-target}/pg_config/$version-$(cksum <<<"$pg_config" | cut -d' ' -f1)"
mkdir -p "$place"
printf '#!/bin/sh\nexec %q "$@"\n' "$pg_config" >"$place/pg_config.$$"
chmod +x "$place/pg_config.$$"
mv "$place/pg_config.$$" "$place/pg_config"
PGRX_PG_CONFIG_PATH=$(realpath "$place/pg_config")
export PGRX_PG_CONFIG_PATH
exec cargo "$2" --locked --features "pg${version%%.*}" "${@:3}"
