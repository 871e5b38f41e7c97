#!/usr/bin/env bash
# Shows the extension at work on real data: demo.sh BINDIR [http]. Makes (or reuses) a throw-away cluster, and loads, looks, dumps, rejects, imports and
# exports the official HL7 examples of examples/data. With http, goes on with the gateway until it is interrupted. Everything lies in
# $BULK_CACHE/demo.
set -euo pipefail
cd "$(dirname "$0")/.."

bin=$1
home="$BULK_CACHE/demo"
port=${BULK_DEMO_PORT:-54329}
web_port=${BULK_DEMO_WEB_PORT:-54380}
gateway_port=${BULK_DEMO_GATEWAY_PORT:-54381}
data="$home/examples"
# A server must not run as root.
owner=$(if [ "$(id -u)" = 0 ]; then echo postgres; else id -un; fi)
as_owner() { if [ "$(id -un)" = "$owner" ]; then "$@"; else (cd "$home" && setpriv --reuid="$owner" --regid="$(id -g "$owner")" --init-groups "$@"); fi; }
# Stops the demo where something did not come out as it should.
expect() { # VALUE QUERY
    local got
    got=$(psql -At -c "$2")
    [ "$got" = "$1" ] || { echo "demo: expected $1, got $got from: $2" >&2; exit 1; }
}
export PGOPTIONS='-c search_path=demo -c client_min_messages=warning -c timezone=UTC'
psql() { "$bin/psql" -X -q -v ON_ERROR_STOP=1 -h "$home" -p "$port" -U postgres -d postgres "$@"; }
say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
# Shows statements and what they answer, as psql does: show STATEMENT [PSQL-ARGUMENT...]
show() {
    sed '1s/^/demo=# /; 2,$s/^/demo-# /' <<<"$1"
    psql "${@:2}" -c "$1" | sed '/^$/d; /^([0-9]* rows*)$/d'
}

mkdir -p "$home"
rm -rf "$data" "$home/export" "$home/dump"
mkdir "$data" "$home/export" "$home/dump"
# The server need not be able to read the checkout.
cp examples/data/*.gz "$data"
chown -R "$owner" "$home"
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
    as_owner "$bin/pg_ctl" -D "$home/data" -l "$home/log" -w -o "-p $port -c listen_addresses=$listen -c unix_socket_directories=$home" start >/dev/null ||
        { cat "$home/log" >&2; exit 1; }
fi
psql -c 'drop schema if exists demo cascade' -c 'drop extension if exists bulk' -c 'create schema demo'

say '1. Install the extension, and load a folder of gzipped NDJSON: what each line is, it says itself'
show 'create extension bulk;'
show "select * from jsonb_each_text(bulk.load('$data/*.gz', fhir => true)) as loaded(type, resources) order by resources::int desc limit 5;"

say '2. Look: a table for each resource type, the resource as jsonb'
show "select id, resource#>>'{name,0,family}' as family, resource->>'birthDate' as born, status, ts from patient where resource ? 'birthDate' order by born limit 4;"

say '3. Dump: a line for each resource, as it is stored and in FHIR format; psql writes a whole type into a file'
show "select bulk.dump('Device') limit 1;" -At
show "select bulk.dump('Device', fhir => true) limit 1;" -At
for type in "$data"/*.gz; do
    type=$(basename "$type" .ndjson.gz)
    psql -At -c "select bulk.dump('$type', fhir => true)" >"$home/dump/$type.ndjson"
done
echo "\$ psql -At -c \"select bulk.dump('Patient', fhir => true)\" >$home/dump/Patient.ndjson"
echo "$(wc -l <"$home/dump/Patient.ndjson") lines"

say '4. What went in comes out: every type dumped, and compared with its file (as jsonb text, so that 1.10 is not 1.1)'
psql -At <<SQL
create temp table source (j jsonb);
create temp table dumped (j jsonb);
\\copy source from program 'zcat $data/*.gz' (format csv, quote e'\\x01', delimiter e'\\x02')
\\copy dumped from program 'cat $home/dump/*.ndjson' (format csv, quote e'\\x01', delimiter e'\\x02')
create function pg_temp.without_server_fields(j jsonb) returns text language sql immutable as \$\$
    select (case when m = '{}' then j - 'meta' else jsonb_set(j, '{meta}', m) end)::text from (
        select case when e = '[]' then m - 'extension' else jsonb_set(m, '{extension}', e) end as m from (
            select coalesce(j->'meta', '{}') - 'versionId' - 'lastUpdated' as m,
                coalesce((select jsonb_agg(x) from jsonb_array_elements(j#>'{meta,extension}') x where x->>'url' <> 'ex:createdAt'), '[]') as e) a) b \$\$;
select format('%s resources compared, %s differ: %s', count(*), count(*) filter (where different), case when count(*) > 0 and not bool_or(different) then 'ROUND TRIP OK' else 'ROUND TRIP FAILED' end)
from (select pg_temp.without_server_fields(s.j) is distinct from pg_temp.without_server_fields(d.j) as different
      from source s full join dumped d on s.j->>'resourceType' = d.j->>'resourceType' and s.j->>'id' = d.j->>'id') x \\gset verdict_
\\echo :verdict_format
select :'verdict_format' not like '%OK' as failed \\gset
\\if :failed
    \\quit 3
\\endif
SQL

say '5. A line that is no resource: with max-errors the others are loaded, and bulk.load_error says where it is'
printf '%s\n' '{"resourceType": "Flag", "id": "good"}' '{"resourceType": "Flag", "id": "cut", "code": {"text": "fal' '{"resourceType": "Flag"}' >"$home/broken.ndjson"
chmod a+r "$home/broken.ndjson"
show "select bulk.load('$home/broken.ndjson', fhir => true, options => '{\"max-errors\": 10}');" -At
show 'select line, byte_offset, sqlstate, message from bulk.load_error order by line;'

expect '2 1' "select (select count(*) from bulk.load_error) || ' ' || (select count(*) from flag)"

say '6. Import in background workers: the session is free meanwhile, and a server that goes down loses nothing'
for type in Observation Condition Encounter; do
    psql -At -c "select jsonb_set(line, '{id}', to_jsonb(copy || '-' || (line->>'id'))) from (select bulk.dump('$type', fhir => true)::jsonb as line) l, generate_series(1, 500) copy" |
        gzip -1 >"$home/many-$type.ndjson.gz"
done
chmod a+r "$home"/many-*
inputs=$(for type in Observation Condition Encounter; do printf '\n    {"resourceType": "%s", "url": "file://%s"},' "$type" "$home/many-$type.ndjson.gz"; done)
show "select status, body from bulk.import('{\"id\": \"nightly\", \"inputs\": [${inputs%,}]}', fhir => true);"
echo "demo=# select source, phase, percent, rows, rows_per_second::int from bulk.progress where job_id = 'nightly';"
for _ in $(seq 100); do
    psql -c "select split_part(source, 'demo/', 2) as source, phase, percent, rows, rows_per_second::int from bulk.progress where job_id = 'nightly'" | sed '/^$/d; /^(/d'
    [ "$(psql -At -c "select bulk.wait('nightly', '0.5 s')")" = in-progress ] || break
done
show "select bulk.wait('nightly');" -At
expect done "select bulk.wait('nightly')"
expect 43000 "select sum(stored) from bulk.job_file where job_id = 'nightly'"
show "select resource_type, state, stored, finished - started as took from bulk.job_file where job_id = 'nightly' order by resource_type;"

say '7. Export everything as of one moment into a directory (or a bucket of S3, Azure, Google Cloud Storage)'
settings=(-c "set bulk.storage_backend = 'file'" -c "set bulk.storage_file_directory = '$home/export'")
printf 'demo=# %s\n' "set bulk.storage_backend = 'file';" "set bulk.storage_file_directory = '$home/export';"
echo "demo=# select status, body->>'id' as id from bulk.export();"
export_id=$(psql -At "${settings[@]}" -c "select body->>'id' from bulk.export()")
echo " 202 | $export_id"
show "select bulk.wait('$export_id');" -At
expect completed "select bulk.wait('$export_id')"
expect "$(psql -At -c "select count(*) from observation")" "select sum((f->>'count')::int) from bulk.export_status('$export_id') s, jsonb_array_elements(s.body->'output') f where f->>'type' = 'Observation'"
show "select f->>'type' as type, f->>'count' as count, f->>'url' as url from bulk.export_status('$export_id') s, jsonb_array_elements(s.body->'output') f order by (f->>'count')::int desc limit 4;"

if [ "${2:-}" = http ]; then
    mkdir -p "$home/storage" "$home/web"
    cat "$data"/*.gz >"$home/web/all.ndjson.gz"
    rm -rf "$home/web/dump"
    cp -r "$home/dump" "$home/web/dump"
    chown "$owner" "$home/storage"
    chmod -R a+rX "$home/web"
    cat >"$home/nginx.conf" <<CONF
daemon off; master_process off; pid $home/nginx.pid; error_log $home/nginx.log;
events { worker_connections 64; }
http { access_log off; client_body_temp_path $home/a; proxy_temp_path $home/b; fastcgi_temp_path $home/c; uwsgi_temp_path $home/d; scgi_temp_path $home/e;
server { listen 127.0.0.1:$web_port; root $home/web; } }
CONF
    "$BULK_CACHE/nginx/usr/sbin/nginx" -e "$home/nginx.log" -c "$home/nginx.conf" &
    web=$!
    trap 'kill $web' EXIT
    psql <<SQL
do \$\$ begin if to_regrole('"bulk-client"') is null then create role "bulk-client" login; end if; end \$\$;
alter role "bulk-client" password 'secret';
alter role "bulk-client" set search_path = demo;
grant usage, create on schema demo to "bulk-client";
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
    "$BULK_GATEWAY" "127.0.0.1:$gateway_port" "host=127.0.0.1 port=$port dbname=postgres"
fi

say 'How to go on: the cluster goes on running'
echo "$bin/psql -h $home -p $port -U postgres postgres"
echo '    set search_path = demo;  \dt  \df+ bulk.*  table bulk.job;'
echo "to stop it:"
stop="$bin/pg_ctl -D $home/data stop"
echo "    $(if [ "$owner" = "$(id -un)" ]; then echo "$stop"; else echo "su $owner -s /bin/sh -c '$stop'"; fi)"
echo 'into a PostgreSQL of yours:'
echo '    make install PG_CONFIG=/path/to/pg_config'
