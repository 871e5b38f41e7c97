#!/usr/bin/env bash
# Format, layers, clippy, and what the server's headers say of functions that are declared by hand; for PostgreSQL 15 to 18.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/provision.sh build
. scripts/versions.sh
provision_versions 15 16 17 18
gateway=(--locked --manifest-path examples/gateway/Cargo.toml)

cargo fmt --check
cargo fmt --check --manifest-path examples/gateway/Cargo.toml
cargo fmt --check --manifest-path scripts/architecture/Cargo.toml
scripts/layers.sh
(cd sql/upgrade && sha256sum --check --quiet frozen.sha256) || { echo "a released script was changed: databases have what it made" >&2; exit 1; }
scripts/notices.sh
cargo clippy --quiet --locked --all-targets -- -D warnings
CARGO_TARGET_DIR="$BULK_CACHE/target/gateway" cargo clippy --quiet "${gateway[@]}" -- -D warnings
for version in "${versions[@]}"; do
    scripts/signatures.sh "$(bin_of "$version")/pg_config"
    scripts/cargo.sh "$(bin_of "$version")/pg_config" clippy --quiet -- -D warnings
done
say_missing
