#!/usr/bin/env bash
# The layers of the crate (see src/lib.rs): who may name whom, and where unsafe code and pgrx may stand.
set -euo pipefail
cd "$(dirname "$0")/.."
failed=0

refuse() { # WHAT PATTERN FILES...
    local what=$1 pattern=$2
    shift 2
    if grep -nE "$pattern" "$@"; then
        echo "layers: $what" >&2
        failed=1
    fi
}

files() { find "$@" -name '*.rs'; }

mapfile -t pure < <(files src/error.rs src/jsonb src/fhir src/store src/op)
refuse 'pgrx is for lib, api and pg' '\bpgrx\b' "${pure[@]}" $(files src/job)
refuse 'unsafe code is for pg' '\bunsafe\b' "${pure[@]}" $(files src/api src/job)
refuse 'raw bindings are for pg' 'pg_sys::[a-z_]+\(' $(files src/api)
refuse 'error is at the bottom' 'crate::' src/error.rs
refuse 'jsonb stands on error alone' 'crate::(fhir|store|op|job|api|pg)\b' $(files src/jsonb)
refuse 'fhir stands on jsonb and error' 'crate::(store|op|job|api|pg)\b' $(files src/fhir)
refuse 'store stands on error alone' 'crate::(jsonb|fhir|op|job|api|pg)\b' $(files src/store)
refuse 'op knows neither api nor pg' 'crate::(job|api|pg)\b' $(files src/op)
refuse 'job is below api' 'crate::api\b' $(files src/job)
refuse 'pg is below api and job' 'crate::(api|job)\b' $(files src/pg)
refuse 'versions of PostgreSQL differ in pg/compat.rs' 'cfg\(.*feature = "pg1' $(files src | grep -v src/pg/compat.rs)
refuse 'functions of the server are declared by hand in pg/unguarded.rs, or by its macro' '^ *unsafe extern "C[^"]*" \{' $(files src | grep -v src/pg/unguarded.rs)
refuse 'structs for the server are allocated by pg/padded.rs' 'PgBox::<pg_sys::[A-Za-z]*>::alloc|: pg_sys::(FmgrInfo|BackgroundWorker)\b' $(files src)
# cargo-pgrx reads the scripts' names and order from src/lib.rs, make from the folder.
if [ "$(sed -nE 's/.*extension_sql_file!\("\.\.\/(sql\/install\/[^"]*)".*/\1/p' src/lib.rs)" != "$(ls sql/install/*.sql)" ]; then
    echo 'layers: src/lib.rs does not name the files of sql/install in their order' >&2
    failed=1
fi
exit $failed
