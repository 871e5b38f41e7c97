#!/usr/bin/env bash
# The whole thread on real input: demo.sh BINDIR [http]. Starts (or reuses) a throw-away cluster, takes the official HL7 R4 examples from
# a local web server, loads them, dumps them again and compares. With http, goes on with the gateway until it is interrupted. Everything lies
# in $BULK_CACHE/demo.
set -euo pipefail
cd "$(dirname "$0")/.."

bin=$1
home="$BULK_CACHE/demo"
port=${BULK_DEMO_PORT:-54329}
web_port=${BULK_DEMO_WEB_PORT:-54380}
gateway_port=${BULK_DEMO_GATEWAY_PORT:-54381}
examples="$BULK_CACHE/examples"
# A server must not run as root.
owner=$(if [ "$(id -u)" = 0 ]; then echo postgres; else id -un; fi)
as_owner() { if [ "$(id -un)" = "$owner" ]; then "$@"; else setpriv --reuid="$owner" --regid="$owner" --init-groups "$@"; fi; }
psql() { "$bin/psql" -X -q -v ON_ERROR_STOP=1 -h "$home" -p "$port" -U postgres -d postgres "$@"; }
say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
seconds() { date +%s.%N; }
# What a step took, and its rate over the bytes of the examples.
took() { awk -v a="$1" -v b="$2" -v n="$3" 'BEGIN { printf "   %.1f s, %.0f MB/s of NDJSON\n", b - a, n / (b - a) / 1e6 }'; }

mkdir -p "$home"
chown "$owner" "$home"
chmod 755 "$home"
if [ ! -e "$home/data/PG_VERSION" ]; then
    say "Making a cluster in $home"
    as_owner "$bin/initdb" -D "$home/data" -U postgres -A trust -E UTF8 --locale=C >/dev/null
fi
# The gateway is for those whom the server asks for a password, as it does on the loopback.
listen=
if [ "${2:-}" = http ]; then
    listen=127.0.0.1
    as_owner "$bin/pg_ctl" -D "$home/data" -w -m fast stop >/dev/null 2>&1 || true
    as_owner tee "$home/data/pg_hba.conf" >/dev/null <<<$'local all all trust\nhost all all 127.0.0.1/32 scram-sha-256'
fi
if ! as_owner "$bin/pg_ctl" -D "$home/data" status >/dev/null; then
    say "Starting PostgreSQL on port $port (socket in $home, ${listen:-no network})"
    as_owner "$bin/pg_ctl" -D "$home/data" -l "$home/log" -w -o "-p $port -c listen_addresses=$listen -c unix_socket_directories=$home" start >/dev/null
fi

say "Starting a web server with the official HL7 R4 examples"
cat >"$home/nginx.conf" <<CONF
daemon off; master_process off; pid $home/nginx.pid; error_log $home/nginx.log;
events { worker_connections 64; }
http { access_log off; client_body_temp_path $home/a; proxy_temp_path $home/b; fastcgi_temp_path $home/c; uwsgi_temp_path $home/d; scgi_temp_path $home/e;
server { listen 127.0.0.1:$web_port; root $examples; location /dump/ { root $home; } } }
CONF
"$BULK_CACHE/nginx/usr/sbin/nginx" -e "$home/nginx.log" -c "$home/nginx.conf" &
web=$!
trap 'kill $web' EXIT
for _ in $(seq 100); do (: <"/dev/tcp/127.0.0.1/$web_port") 2>/dev/null && break; sleep 0.05; done
url="http://127.0.0.1:$web_port/all.ndjson.gz"
bytes=$(zcat "$examples/all.ndjson.gz" | wc -c)

say "Loading $url: select bulk.load('$url', fhir => true)"
psql -c 'set client_min_messages = warning' -c 'drop schema if exists demo cascade' -c 'drop extension if exists bulk' -c 'create extension bulk' -c 'create schema demo' 2>/dev/null
began=$(seconds)
psql -At -c "set search_path = demo; set bulk.allowed_hosts = '127.0.0.1'" \
    -c "create table demo.loaded as select * from jsonb_each_text(bulk.load('$url', fhir => true)) as x(type, resources)"
took "$began" "$(seconds)" "$bytes"

say "Counts by type"
psql -At -F ' ' -c "select type, resources from demo.loaded order by resources::int desc, type" | pr -4 -t -w 150

say "A Patient in Aidbox format: select bulk.dump('Patient')"
psql -At -c "set search_path = demo; select left(line, 300) || '…' from (select bulk.dump('Patient') as line) x limit 2"
say "and in FHIR format: select bulk.dump('Patient', fhir => true)"
psql -At -c "set search_path = demo; select left(line, 300) || '…' from (select bulk.dump('Patient', fhir => true) as line) x limit 2"

say "Dumping every type in FHIR format"
dump="$home/dump"
rm -rf "$dump"
mkdir -p "$dump"
psql -At -c "select type from demo.loaded order by type" >"$home/types"
began=$(seconds)
{
    echo 'set search_path = demo;'
    while read -r type; do
        echo "\\copy (select bulk.dump('$type', fhir => true)) to '$dump/$type.ndjson' (format csv, quote e'\\x01', delimiter e'\\x02')"
    done <"$home/types"
} | psql
took "$began" "$(seconds)" "$bytes"

say "Comparing what came out with what went in (as jsonb text, so that 1.10 is not 1.1)"
psql -At <<SQL
create temp table source (j jsonb);
create temp table dumped (j jsonb);
\\copy source from program 'zcat $examples/all.ndjson.gz' (format csv, quote e'\\x01', delimiter e'\\x02')
\\copy dumped from program 'cat $dump/*.ndjson' (format csv, quote e'\\x01', delimiter e'\\x02')
create function pg_temp.without_server_fields(j jsonb) returns text language sql immutable as \$\$
    select (case when m = '{}' then j - 'meta' else jsonb_set(j, '{meta}', m) end)::text from (
        select case when e = '[]' then m - 'extension' else jsonb_set(m, '{extension}', e) end as m from (
            select coalesce(j->'meta', '{}') - 'versionId' - 'lastUpdated' as m,
                coalesce((select jsonb_agg(x) from jsonb_array_elements(j#>'{meta,extension}') x where x->>'url' <> 'ex:createdAt'), '[]') as e) a) b \$\$;
select format('   %s resources compared, %s differ: %s', count(*), count(*) filter (where different), case when count(*) > 0 and not bool_or(different) then 'ROUND TRIP OK' else 'ROUND TRIP FAILED' end)
from (select pg_temp.without_server_fields(s.j) is distinct from pg_temp.without_server_fields(d.j) as different
      from source s full join dumped d on s.j->>'resourceType' = d.j->>'resourceType' and s.j->>'id' = d.j->>'id') x \\gset verdict_
\\echo :verdict_format
select :'verdict_format' not like '%OK' as failed \\gset
\\if :failed
    \\quit 3
\\endif
SQL

if [ "${2:-}" = http ]; then
    mkdir -p "$home/storage"
    chown "$owner" "$home/storage"
    chmod -R a+rX "$dump"
    psql <<SQL
do \$\$ begin if to_regrole('"bulk-client"') is null then create role "bulk-client" login; end if; end \$\$;
alter role "bulk-client" password 'secret';
alter role "bulk-client" set search_path = demo;
grant all on schema demo to "bulk-client";
grant all on all tables in schema demo to "bulk-client";
grant all on all sequences in schema demo to "bulk-client";
grant bulk_remote, pg_read_server_files, pg_write_server_files to "bulk-client";
load 'bulk';
alter database postgres set bulk.allowed_hosts = '127.0.0.1';
alter database postgres set bulk.storage_backend = 'file';
alter database postgres set bulk.storage_file_directory = '$home/storage';
SQL
    say "The gateway answers on http://127.0.0.1:$gateway_port, for the role bulk-client with the password secret, until Ctrl-C. Try, as README.md goes on under Over HTTP:"
    echo "   curl -u bulk-client:secret 'http://127.0.0.1:$gateway_port/Patient/\$dump'"
    "$CARGO_TARGET_DIR/release/bulk-gateway" "127.0.0.1:$gateway_port" "host=127.0.0.1 port=$port dbname=postgres"
fi

say "The cluster goes on running. To look around:"
echo "   $bin/psql -h $home -p $port -U postgres postgres"
echo "   set search_path = demo; \\dt  \\df+ bulk.*"
stop="$bin/pg_ctl -D $home/data stop"
echo "To stop it:  $(if [ "$owner" = "$(id -un)" ]; then echo "$stop"; else echo "su $owner -s /bin/sh -c '$stop'"; fi)"
