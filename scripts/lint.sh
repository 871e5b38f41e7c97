#!/usr/bin/env bash
# Format, layers, clippy, and what the server's headers say of functions that are declared by hand; for PostgreSQL 15 to 18.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/provision.sh build pg15 pg16 pg17 pg18
config_of() {
    case $1 in
    15) echo "$BULK_CACHE/pg15/lib/postgresql/15/bin/pg_config" ;;
    16) echo "$BULK_CACHE/pgserver/16/bin/pg_config" ;;
    *) echo "$BULK_CACHE/pg$1/bin/pg_config" ;;
    esac
}
gateway=(--locked --manifest-path examples/gateway/Cargo.toml)

cargo fmt --check
cargo fmt --check --manifest-path examples/gateway/Cargo.toml
scripts/layers.sh
cargo clippy --quiet --locked --all-targets -- -D warnings
CARGO_TARGET_DIR="$BULK_CACHE/target/gateway" cargo clippy --quiet "${gateway[@]}" -- -D warnings
for version in 15 16 17 18; do
    scripts/signatures.sh "$(config_of "$version")"
    PGRX_PG_CONFIG_PATH=$(config_of "$version") cargo clippy --quiet --locked --features "pg$version" -- -D warnings
done
