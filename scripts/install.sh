#!/usr/bin/env bash
# Copies the extension into a PostgreSQL, or removes it: install.sh install PG_CONFIG LIBRARY CONTROL SCRIPT..., install.sh uninstall PG_CONFIG.
# DESTDIR is put before the directories, for packagers. Files are renamed into their places: a library that a server has mapped must not be
# written over, since its processes would crash.
set -euo pipefail

verb=$1
pg_config=$2
shift 2
library_directory="${DESTDIR:-}$("$pg_config" --pkglibdir)"
extension_directory="${DESTDIR:-}$("$pg_config" --sharedir)/extension"

check_writable() { # DIRECTORY: it, or what it is to be made in
    local directory=$1
    while [ ! -e "$directory" ]; do directory=$(dirname "$directory"); done
    [ -w "$directory" ] && return
    echo "user $(id -un) may not write to $directory: run the same as who may, in most cases:" >&2
    printf '  sudo make %s' "$verb" >&2
    printf ' %q' "PG_CONFIG=$(realpath "$(command -v "$pg_config")")" "BULK_CACHE=$BULK_CACHE" ${DESTDIR:+"DESTDIR=$DESTDIR"} \
        ${CARGO_TARGET_DIR:+"CARGO_TARGET_DIR=$CARGO_TARGET_DIR"} ${PROFILE:+"PROFILE=$PROFILE"} >&2
    printf '\n' >&2
    exit 1
}

place() { # FILE DIRECTORY NAME MODE
    mkdir -p "$2"
    new="$2/.$3.$$"
    trap 'rm -f "$new"' EXIT
    install -m "$4" "$1" "$new"
    mv -f "$new" "$2/$3"
    trap - EXIT
    echo "installed $2/$3"
}

check_writable "$library_directory"
check_writable "$extension_directory"
case $verb in
install)
    place "$1" "$library_directory" bulk.so 755
    shift
    for file in "$@"; do place "$file" "$extension_directory" "$(basename "$file")" 644; done
    ;;
uninstall)
    rm -fv "$library_directory/bulk.so" "$extension_directory"/bulk.control "$extension_directory"/bulk--*.sql
    ;;
esac
