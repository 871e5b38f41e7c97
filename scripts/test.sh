#!/usr/bin/env bash
# Runs the tests: test.sh [PART-OF-A-NAME]. The unit tests, then the server's, in legs (a table below) that run beside one another while
# libraries for further versions of PostgreSQL are built. What a leg prints lies in $BULK_CACHE/logs until it is shown, whole, at its end.
# BULK_TEST_MISSING_OK='17' (or several) lets a version of PostgreSQL that could not be had pass; it is said all the same.
# BULK_TEST_LEGS='15 18' runs only these legs.
set -euo pipefail
cd "$(dirname "$0")/.."

filter=${1:-}
# A leg is a version of PostgreSQL with the settings of its clusters: which tests, how rows are written, how clusters are made.
#    leg      version  tests   environment
legs=(
    '15       15       all     BULK_TEST_SETTINGS=default_toast_compression=lz4 BULK_TEST_INITDB=--locale=C'
    '15-sql   15       writing BULK_TEST_SETTINGS=bulk.fast_path=off BULK_TEST_INITDB=--locale=C.UTF-8,--locale-provider=icu,--icu-locale=en-US-x-icu'
    '18       18       all     BULK_TEST_INITDB=--locale=C,--data-checksums'
    '16       16       server  BULK_TEST_INITDB=--locale=C'
    '17       17       server  BULK_TEST_INITDB=--locale=C,--data-checksums'
)
wanted=${BULK_TEST_LEGS:-15 15-sql 18 16 17}
# Legs at a time, each with as many tests at a time as there are cores, at most four: two keep two cores busy to 95 %.
at_a_time=${BULK_TEST_LEGS_AT_A_TIME:-2}

# The tests' servers are on the loopback, whatever proxy leads elsewhere.
export no_proxy="127.0.0.1,localhost,${no_proxy:-${NO_PROXY:-}}"
export NO_PROXY=$no_proxy
export BULK_GATEWAY="$BULK_CACHE/target/gateway/quick/bulk-gateway"

began=$SECONDS
said=()
took() { said+=("$(printf '%-34s %5d s' "$1" $((SECONDS - $2)))"); }
known=$(printf '%s\n' "${legs[@]}" | awk '{ print $1 }')
for leg in $wanted; do
    grep -qx -e "$leg" <<<"$known" || { echo "there is no leg $leg: see scripts/test.sh" >&2; exit 2; }
done
scripts/provision.sh build nginx examples fhirpath validator stores postgrest
. scripts/versions.sh
# The programs of tests are built with the headers of 15.
provision_versions $(printf '%s\n' "${legs[@]}" | awk -v wanted=" $wanted " 'BEGIN { print 15 } index(wanted, " " $1 " ") { print $2 }' | sort -un)
took 'packages' "$began"

# Both programs of tests from one build, whose features are those of PostgreSQL 15: they link its functions lazily and call none.
since=$SECONDS
CARGO_TARGET_DIR="$BULK_CACHE/target/gateway" cargo build --quiet --locked --profile quick --manifest-path examples/gateway/Cargo.toml
took 'build of the gateway' "$since"
since=$SECONDS
programs=$(scripts/cargo.sh "$(bin_of 15)/pg_config" test --color never --no-run --profile quick --lib --test pg_test 2>&1 | tee >(cat >&2) |
    sed -nE 's/^ *Executable .*\((.*)\)$/\1/p')
unit=$(grep -E '/bulk-[0-9a-f]+$' <<<"$programs") && server=$(grep -E '/pg_test-[0-9a-f]+$' <<<"$programs") ||
    { echo 'the tests were not built' >&2; exit 1; }
took 'build of the tests' "$since"

since=$SECONDS
"$unit" ${filter:+"$filter"} | tee "$BULK_CACHE/unit.log"
took 'unit tests' "$since"

logs="$BULK_CACHE/logs"
mkdir -p "$logs"
rm -f "$logs"/*.log
failed=()
declare -A running=() started=()
# Shows what a leg printed, which has ended.
finish() { # LEG
    local status=0
    wait "${running[$1]}" || status=$?
    unset "running[$1]"
    printf '\n===== %s =====\n' "$1"
    cat "$logs/$1.log"
    [ $status = 0 ] || failed+=("$1")
    took "leg $1" "${started[$1]}"
}
# Waits until fewer than so many legs run.
until_fewer_than() {
    local one
    while [ ${#running[@]} -ge "$1" ]; do
        for one in "${!running[@]}"; do
            kill -0 "${running[$one]}" 2>/dev/null || finish "$one"
        done
        [ ${#running[@]} -lt "$1" ] || sleep 0.2
    done
}
stop() { for pid in "${running[@]}"; do kill "$pid" 2>/dev/null || true; done; }
trap stop EXIT

built=
for line in "${legs[@]}"; do
    read -r leg version tests environment <<<"$line"
    case " $wanted " in *" $leg "*) ;; *) continue ;; esac
    case " ${missing[*]} " in *" $version "*) continue ;; esac
    bin=$(bin_of "$version")
    if [ "$built" != "$version" ]; then
        since=$SECONDS
        make --no-print-directory install PG_CONFIG="$bin/pg_config" PROFILE=quick
        took "build for PostgreSQL $version" "$since"
        built=$version
    fi
    until_fewer_than "$at_a_time"
    [ -z "${started[$leg]:-}" ] || { echo "leg $leg is there twice" >&2; exit 1; }
    started[$leg]=$SECONDS
    env $environment BULK_TEST_BIN="$bin" BULK_TEST_PART="$tests" "$server" ${filter:+"$filter"} >"$logs/$leg.log" 2>&1 &
    running[$leg]=$!
done
until_fewer_than 1
trap - EXIT

printf '\n'
printf '%s\n' "${said[@]}"
printf '%-34s %5d s\n' 'all' $((SECONDS - began))
say_missing
[ ${#failed[@]} = 0 ] || { echo "failed: ${failed[*]}" >&2; exit 1; }
# The closing lines of each program of tests, once more.
results=$(grep -h '^test result:' "$BULK_CACHE/unit.log" "$logs"/*.log)
grep -q ' [1-9][0-9]* passed' <<<"$results" || { echo "no test has '$filter' in its name" >&2; exit 1; }
[ "$(ls "$logs"/*.log | wc -l)" = "${#started[@]}" ] || { echo 'a leg has left no log' >&2; exit 1; }
for log in "$logs"/*.log; do grep -h '^test result:' "$log" | sed "s/\$/  (server tests, leg $(basename "$log" .log))/"; done
