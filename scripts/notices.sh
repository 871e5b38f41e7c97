#!/usr/bin/env bash
# Refuses a crate in the library whose licence asks for more than its text (MPL, GPL and the like) and that NOTICE does not name.
set -euo pipefail
cd "$(dirname "$0")/.."

plain='MIT|Apache-2\.0|BSD|ISC|Zlib|0BSD|CC0-1\.0|Unlicense|BSL-1\.0|Unicode-3\.0'
cargo tree --locked -e normal --prefix none --no-default-features --features pg15 --format '{p}|{l}' | sed -E 's/ \(.*\)\|/|/; s/ \(\*\)$//' | sort -u |
    while IFS='|' read -r crate licence; do
        name=${crate%% *}
        if ! grep -qE "$plain" <<<"$licence" && ! grep -q "^- $name (" NOTICE; then
            echo "notices: NOTICE does not name $name ($licence)" >&2
            exit 1
        fi
    done
