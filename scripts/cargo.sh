#!/usr/bin/env bash
# Cargo for one PostgreSQL: cargo.sh PG_CONFIG SUBCOMMAND ARGUMENT... adds its feature, and where its headers are.
set -euo pipefail

pg_config=$(realpath "$(command -v "$1")")
version=$("$pg_config" --version | sed -nE 's/^PostgreSQL ([0-9]+(\.[0-9]+)?).*/\1/p')
export PGRX_PG_CONFIG_PATH=$pg_config
# Of the headers pgrx's build notices only where they are. With their version among its arguments it also reads them again after an update.
export BINDGEN_EXTRA_CLANG_ARGS="${BINDGEN_EXTRA_CLANG_ARGS:-} -DBULK_HEADERS=$version"
exec cargo "$2" --locked --features "pg${version%%.*}" "${@:3}"
