#!/usr/bin/env bash
# Compares the functions of the server that pgrx does not bind, which src/pg/sys/unguarded.rs declares by hand, with the headers of a version:
# signatures.sh PG_CONFIG. The compiler refuses a declaration that differs from the headers' own.
set -euo pipefail
cd "$(dirname "$0")/.."

declarations=$(sed -nE '/^unsafe extern "C-unwind"/,/^}/s/^( *pub fn .*\));$/\1 -> void;/;s/^ *pub fn ([a-z_]+)\((.*)\) -> ([a-z0-9_]+);$/\3 \1(\2);/p' src/pg/sys/unguarded.rs |
    sed -E 's/\b[a-z_]+: //g; s/\*const c_char/const char */g; s/c_int/int/g; s/\bi64\b/int64/g; s/^i32/int/')
[ "$(wc -l <<<"$declarations")" = "$(sed -n '/^unsafe extern "C-unwind"/,/^}/p' src/pg/sys/unguarded.rs | grep -c 'fn ')" ] ||
    { echo "signatures: a declaration in src/pg/sys/unguarded.rs is not understood" >&2; exit 1; }
cc -fsyntax-only -x c -I "$("$1" --includedir-server)" - <<END
#include "postgres.h"
#include "commands/sequence.h"
#include "utils/timeout.h"
_Static_assert(STATEMENT_TIMEOUT == $(sed -n 's/^const STATEMENT_TIMEOUT: u32 = \(.*\);/\1/p' src/pg/sys/timer.rs), "src/pg/sys/timer.rs");
/* Named first, so that one that no header declares is an error too. */
static const void *used[] = {$(sed -E 's/^[a-z0-9_]+ ([a-z_]+)\(.*/(const void *) \1,/' <<<"$declarations" | tr '\n' ' ')};
$declarations
END
