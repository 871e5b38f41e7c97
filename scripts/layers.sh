#!/usr/bin/env bash
# The order of the rooms (scripts/architecture), and where unsafe code, pgrx and the versions of PostgreSQL may stand.
set -euo pipefail
cd "$(dirname "$0")/.."
failed=0

architecture=$BULK_CACHE/target/architecture
CARGO_TARGET_DIR="$architecture" cargo test --quiet --locked --manifest-path scripts/architecture/Cargo.toml >/dev/null
CARGO_TARGET_DIR="$architecture" cargo build --quiet --locked --manifest-path scripts/architecture/Cargo.toml
"$architecture/debug/architecture" src scripts/architecture/src.rules || failed=1
"$architecture/debug/architecture" pg_test scripts/architecture/pg_test.rules || failed=1

refuse() { # WHAT PATTERN FILES...
    local what=$1 pattern=$2
    shift 2
    if grep -nE "$pattern" "$@"; then
        echo "layers: $what" >&2
        failed=1
    fi
}

files() { find "$@" -name '*.rs'; }

mapfile -t pure < <(files src/error.rs src/jsonb src/text src/fhir src/store src/pipeline)
refuse 'pgrx is for lib, api and pg' '\bpgrx\b' "${pure[@]}" $(files src/job src/operation)
refuse 'unsafe code is for pg' '\bunsafe\b' "${pure[@]}" $(files src/api src/job src/operation)
refuse 'raw bindings are for pg' 'pg_sys::[a-z_]+\(' $(files src/api)
refuse 'versions of PostgreSQL differ in pg/sys/compat.rs' 'cfg\(.*feature = "pg1' $(files src | grep -v src/pg/sys/compat.rs)
refuse 'functions of the server are declared by hand in pg/sys/unguarded.rs, or by its macro' '^ *unsafe extern "C[^"]*" \{' $(files src | grep -v src/pg/sys/unguarded.rs)
refuse 'statements are run by pg/sys/sql.rs' '\b(pgrx::)?Spi::|\bSPI_(execute|cursor)' $(files src | grep -v src/pg/sys/sql.rs)
refuse 'a SAFETY note says why the call is sound where it stands' 'SAFETY:.*[Aa]s above' $(files src)
refuse 'structs for the server are allocated by pg/sys/padded.rs' 'PgBox::<pg_sys::[A-Za-z]*>::alloc|: pg_sys::(FmgrInfo|BackgroundWorker)\b' $(files src)
# cargo-pgrx reads the scripts' names and order from src/lib.rs, make from the folder.
if [ "$(sed -nE 's/.*extension_sql_file!\("\.\.\/(sql\/install\/[^"]*)".*/\1/p' src/lib.rs)" != "$(ls sql/install/*.sql)" ]; then
    echo 'layers: src/lib.rs does not name the files of sql/install in their order' >&2
    failed=1
fi
exit $failed
