#!/usr/bin/env bash
# A new machine: Debian 12 as debootstrap's minbase makes it, with git, make and Rust and nothing else. In it, as root and as an ordinary user with
# sudo: the two commands of README.md, `make demo` (twice) and `make test` (one test of the server), from a clone of HEAD. Takes root, and about
# 25 minutes on two cores. What it made is gone at the end; BULK_FRESH_KEEP=1 keeps it.
#   BULK_FRESH='root demo' runs only these: of root and user, of demo and test.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo 'make fresh makes a chroot: run it as root' >&2; exit 1; }

# Mounts and processes end with this script.
if [ "${BULK_FRESH_INSIDE:-}" = "" ]; then
    BULK_FRESH_INSIDE=1 exec unshare --mount --pid --fork --kill-child --propagation private "$0" "$@"
fi
what=${BULK_FRESH:-root user demo test}
base="$BULK_CACHE/fresh/base"
mkdir -p "$BULK_CACHE/fresh"
said=()
timed() { # NAME COMMAND...
    local began=$SECONDS name=$1
    shift
    "$@"
    said+=("$(printf '%-44s %5d s' "$name" $((SECONDS - began)))")
}

if [ ! -e "$base/complete" ]; then
    rm -rf "$base"
    mirror=$(grep -rhoE 'https?://[^ ]+/debian/?( |$)' /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null | grep -v snapshot | head -1 || true)
    timed 'debootstrap' debootstrap --variant=minbase --include=git,make,sudo,ca-certificates bookworm "$base" "$mirror" >/dev/null
    # A machine that is kept up to date has the newest minor releases.
    sed -i "s|^deb .*|deb $mirror bookworm main\ndeb $mirror bookworm-updates main\ndeb ${mirror%/debian*}/debian-security bookworm-security main|" "$base/etc/apt/sources.list"
    rm -rf "$base"/var/lib/apt/lists/*
    touch "$base/complete"
fi
toolchain=$(rustc --print sysroot)

within() { # ROOT USER COMMAND: a login shell's environment and no more
    # shellcheck disable=SC2016
    chroot "$1" /usr/bin/env -i HOME="$(chroot "$1" getent passwd "$2" | cut -d: -f6)" USER="$2" TERM=dumb \
        PATH=/opt/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        setpriv --reuid="$2" --regid="$2" --init-groups bash -c "cd; $3"
}

for user in root user; do
    case " $what " in *" $user "*) ;; *) continue ;; esac
    root="$BULK_CACHE/fresh/$user"
    rm -rf "$root"
    cp -a "$base" "$root"
    mkdir -p "$root/opt/rust" "$root/opt/source"
    mount --bind -o ro "$toolchain" "$root/opt/rust"
    mount --bind -o ro "$PWD" "$root/opt/source"
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    # The network is this machine's, with the authorities that it trusts.
    cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
    cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
    [ $user = root ] || { chroot "$root" useradd --create-home --shell /bin/bash user; echo 'user ALL=(ALL) NOPASSWD: ALL' >"$root/etc/sudoers.d/user"; }
    within "$root" $user 'git config --global --add safe.directory "*" && git clone -q file:///opt/source bulk'
    case " $what " in *' demo '*)
        timed "make demo, $user" within "$root" $user 'cd bulk && make demo'
        timed "make demo again, $user" within "$root" $user 'cd bulk && make demo'
        ;;
    esac
    case " $what " in *' test '*)
        timed "make test, one test on 15, $user" within "$root" $user 'cd bulk && BULK_TEST_LEGS=15 make test TEST="both ways of writing leave the same rows"'
        ;;
    esac
    [ "${BULK_FRESH_KEEP:-}" ] || { umount -l "$root/dev" "$root/proc" "$root/opt/rust" "$root/opt/source"; rm -rf --one-file-system "$root"; }
done
printf '\nfresh: all passed\n'
printf '%s\n' "${said[@]}"
