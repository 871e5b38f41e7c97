#!/usr/bin/env bash
# Runs the behaviour suite of stores against Ceph's object gateway, in a cluster of its own on the loopback that lives in memory:
# radosgw.sh COMMAND... runs the command with BULK_TEST_S3 set. Takes Debian's ceph-mon, ceph-osd, ceph-base and radosgw.
set -euo pipefail

home=$(mktemp -d /tmp/bulk-radosgw-XXXXXX)
monitor=16789
gateway=17480
started=()
finish() {
    # Nothing of it is kept.
    [ ${#started[@]} = 0 ] || kill -9 "${started[@]}" 2>/dev/null || true
    wait 2>/dev/null || true
    rm -rf "$home"
}
trap finish EXIT

# Cephx stays on: the gateway verifies as in production.
uuid() { cat /proc/sys/kernel/random/uuid; }
cluster=$(uuid)
cat >"$home/ceph.conf" <<END
[global]
fsid = $cluster
mon host = 127.0.0.1:$monitor
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
osd pool default size = 1
osd pool default min size = 1
osd crush chooseleaf type = 0
mon allow pool size one = true
keyring = $home/keyring
run dir = $home
log file = $home/\$name.log
admin socket = $home/\$name.asok
[mon.a]
host = localhost
mon addr = 127.0.0.1:$monitor
mon data = $home/mon
[osd.0]
osd data = $home/osd
osd objectstore = memstore
memstore device bytes = 2147483648
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:$gateway
END
mkdir "$home/mon" "$home/osd"
settings=(-c "$home/ceph.conf" --keyring "$home/keyring")
key() { ceph-authtool "$home/keyring" --gen-key -n "$@" >/dev/null; }
ceph-authtool --create-keyring "$home/keyring" --gen-key -n mon. --cap mon 'allow *' >/dev/null
key client.admin --cap mon 'allow *' --cap osd 'allow *'
key client.rgw --cap mon 'allow rwx' --cap osd 'allow rwx'
key osd.0 --cap mon 'allow profile osd' --cap osd 'allow *'
monmaptool --create --add a "127.0.0.1:$monitor" --fsid "$cluster" "$home/monmap" >/dev/null
ceph-mon "${settings[@]}" --mkfs -i a --monmap "$home/monmap"

start() {
    "$@" -f >/dev/null 2>&1 &
    started+=($!)
}
until_so() { # Tries a command for a minute.
    for _ in $(seq 120); do
        if "$@" >/dev/null 2>&1; then return; fi
        sleep 0.5
    done
    echo "radosgw: waited in vain for: $*" >&2
    exit 1
}
start ceph-mon "${settings[@]}" -i a
until_so ceph "${settings[@]}" --connect-timeout 5 -s
ceph "${settings[@]}" auth import -i "$home/keyring" 2>/dev/null
store=$(uuid)
ceph "${settings[@]}" osd new "$store" >/dev/null
ceph-osd "${settings[@]}" -i 0 --mkfs --osd-uuid "$store" 2>/dev/null
start ceph-osd "${settings[@]}" -i 0
start radosgw "${settings[@]}" -n client.rgw
until_so curl -sf "http://127.0.0.1:$gateway"
radosgw-admin "${settings[@]}" -n client.admin user create --uid=bulk --display-name=bulk --access-key=KEY --secret-key=SECRET >/dev/null 2>&1

# An empty bucket; curl leaves the hash of the empty body to its caller.
empty=e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
curl -sf --aws-sigv4 aws:amz:us-east-1:s3 -u KEY:SECRET -H "x-amz-content-sha256: $empty" -X PUT "http://127.0.0.1:$gateway/bucket"

BULK_TEST_S3="http://127.0.0.1:$gateway" "$@"
