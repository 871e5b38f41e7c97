# The versions of PostgreSQL that lint and tests use; to be sourced.

# Where the programs of a version are.
bin_of() { # VERSION
    case $1 in
    15) echo "$BULK_CACHE/pg15/lib/postgresql/15/bin" ;;
    16) echo "$BULK_CACHE/pgserver/16/bin" ;;
    *) echo "$BULK_CACHE/pg$1/bin" ;;
    esac
}

versions=()
missing=()
# Fetches versions: `versions` are there then. One that cannot be had ends the script, unless BULK_TEST_MISSING_OK (as in '16 17') names it.
provision_versions() { # VERSION...
    local version
    for version in "$@"; do
        if scripts/provision.sh "pg$version"; then
            versions+=("$version")
            continue
        fi
        missing+=("$version")
        case " ${BULK_TEST_MISSING_OK:-} " in *" $version "*) ;; *) say_missing && exit 1 ;; esac
    done
}

say_missing() {
    local version
    for version in "${missing[@]}"; do echo "PostgreSQL $version could not be had: NOT TESTED with it" >&2; done
}
