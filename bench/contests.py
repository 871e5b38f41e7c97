"""The contests themselves: loads into empty tables, loads over rows that exist, dumps."""

import gzip
import itertools
import json
import re
from dataclasses import replace
from pathlib import Path

from cluster import Cluster, Cost
from contest import Contender, Contest, hold
from data import Source
from gateway import Gateway
from s3 import S3
from web import Web

CLIENTS = Path(__file__).resolve().parent / "clients"

READY = "\\copy of ready rows"
LIMIT = "insert only: binary COPY of the same bytes as bytea"
LOAD = "bulk.load, FHIR, gz"
VALIDATED = f"{LOAD}, validated"
STAGE = "\\copy to a temporary table, insert … on conflict do update"
MERGED = "copy (select (resource || jsonb_build_object(…))::text)"
DUMP, DUMP_FHIR = "bulk.dump, Aidbox", "bulk.dump, FHIR"
BARE = "copy (select resource::text)"
BYTES, BYTES_FHIR, BYTES_GZIP = "bulk.dump_bytes, Aidbox", "bulk.dump_bytes, FHIR", "bulk.dump_bytes, FHIR, gzip"
GZIP = "copy (select (resource || jsonb_build_object(…))::text) to program 'gzip -1'"

COPY_QUERY, QUERY = "copy (query)", "bulk.dump_sql_bytes"

FROM_DISK, BUCKET = "bulk.load, file after file from disk", "bulk.load_from_bucket, four workers"
TO_GZIP, EXPORT = "copy (select (resource || jsonb_build_object(…))::text) to program 'gzip -1', type by type", "bulk.export, gzip, two workers"
PSQL, PSQL_BINARY = "psql: select bulk.dump_bytes", "copy (select bulk.dump_bytes) to stdout (format binary)"
GATEWAY = "curl of $dump through the gateway"
LOADS, IMPORT = "bulk.load, file after file", "bulk.import, two workers"

# A resource as bulk.dump writes it, by hand.
MERGED_LINE = (
    "(resource || jsonb_build_object('id', id, 'resourceType', resource_type, 'meta', coalesce(resource->'meta', '{}') || "
    "jsonb_build_object('lastUpdated', ts, 'versionId', txid::text, 'createdAt', cts)))::text"
)

COLUMNS = "id, txid, cts, ts, resource_type, status, resource"

# Formats of bulk.dump_sql and what COPY calls them; queries whose rows are wide and narrow, the latter for longer than a session takes to begin.
FORMS = {"tsv": "text", "csv": "csv"}
QUERIES = [("all", f"select {COLUMNS} from {{table}}"), ("few", "select id, txid, ts, status from {table}, generate_series(1, 10)")]


class Bench:
    """What the contests share."""

    def __init__(self, cluster: Cluster, directory: Path, rounds: int, say):
        self.cluster, self.directory, self.rounds, self.say = cluster, directory, rounds, say
        cluster.sql("create extension bulk")
        # To see the bytes of a jsonb as they are.
        cluster.sql("create cast (jsonb as bytea) without function")

    def _file(self, source: Source, kind: str) -> Path:
        return self.directory / f"{source.table}.{kind}"

    def table(self, source: Source, method: str):
        """The type's table, empty, and one like it whose resource is a bytea."""
        sql = self.cluster.sql
        sql(f"drop table if exists {source.table}, {source.table}_history, {source.table}_bytes")
        # For every session from now on, and for this one.
        sql(f"alter database postgres set default_toast_compression = {method}")
        sql(f"set default_toast_compression = {method}")
        sql(f"select bulk.create_resource_table('{source.resource_type}')")
        sql(f"create table {source.table}_bytes (like {source.table} including all)")
        sql(f"alter table {source.table}_bytes alter resource type bytea using null")

    def fill(self, source: Source):
        self.cluster.sql(f"truncate {source.table}")
        self.cluster.sql(f"select bulk.load('{source.gz}', '{source.resource_type}', fhir => true)")

    def ready_rows(self, source: Source):
        """Writes the stored rows as files for COPY, text and binary, and as NDJSON in Aidbox format."""
        self.fill(source)
        copy, table = self.cluster.psql, source.table
        copy(f"\\copy (select {COLUMNS} from {table}) to '{self._file(source, 'copy')}'")
        copy(f"\\copy (select {COLUMNS}::bytea from {table}) to '{self._file(source, 'binary')}' (format binary)")
        lines = f"select bulk.dump('{source.resource_type}')"
        copy(f"\\copy ({lines}) to '{self._file(source, 'aidbox')}' (format csv, quote e'\\x01', delimiter e'\\x02')")
        self.cluster.psql(f"\\! gzip -1 -k -f {self._file(source, 'aidbox')}")

    def contents(self, table: str):
        """Rows and a fingerprint of their ids and resources."""
        row = self.cluster.admin.execute(
            f"select count(*), sum(hashtextextended(id || coalesce(resource_type, '') || resource::text, 0)) from {table}"
        ).fetchone()
        return tuple(map(str, row))

    def load(self, source: Source, method: str) -> Contest:
        """Into an empty table."""
        self.table(source, method)
        self.ready_rows(source)
        table, psql = source.table, self.cluster.psql

        def contender(name: str, run, kind: str = "Aidbox", table: str = table) -> Contender:
            return Contender(
                name, run, lambda: self.cluster.sql(f"truncate {source.table}, {source.table}_bytes"), lambda: self.contents(table), kind,
                lambda: self.cluster.sql(f"select pg_total_relation_size('{table}')"),
            )

        def ours(file: Path, fhir: bool, options: str = "{}"):
            return lambda: psql(f"select bulk.load('{file}', '{source.resource_type}', {fhir}, '{options}');")

        def created() -> Contender:
            made = contender(f"{LOAD}, into a table that it creates", ours(source.gz, True))
            made.prepare = lambda: self.cluster.sql(f"truncate {table}_bytes; drop table {table}")
            return made

        aidbox = self._file(source, "aidbox")
        contenders = [
            contender(READY, lambda: psql(f"\\copy {table} ({COLUMNS}) from '{self._file(source, 'copy')}'")),
            contender(
                "zcat | python | \\copy",
                lambda: psql(
                    f"\\copy {table} (id, txid, resource_type, status, resource) from pstdin",
                    feed=f"zcat {source.gz} | python3 {CLIENTS / 'shape.py'}",
                ),
                kind="FHIR",
            ),
            contender("psycopg, COPY row by row", lambda: self.cluster.python(CLIENTS / "psycopg_copy.py", table, source.gz), kind="FHIR"),
            contender(
                LIMIT, lambda: psql(f"\\copy {table}_bytes ({COLUMNS}) from '{self._file(source, 'binary')}' (format binary)"),
                kind="bytes", table=f"{table}_bytes",
            ),
            contender(LOAD, ours(source.gz, True)),
            contender("bulk.load, FHIR, plain", ours(source.plain, True)),
            contender("bulk.load, Aidbox, gz", ours(aidbox.with_suffix(".aidbox.gz"), False)),
            contender("bulk.load, Aidbox, plain", ours(aidbox, False)),
            created(),
            contender(VALIDATED, ours(source.gz, True, '{"validation": {"enable": "on"}}')),
            contender(f"{LOAD}, lines may be rejected", ours(source.gz, True, '{"max-errors": 1000}')),
        ]
        name = f"load of {source.resource_type}, {method}"
        return hold(self.cluster, name, source.rows, source.bytes, contenders, self.rounds, self.say)

    def upsert(self, source: Source, method: str) -> Contest:
        """Over rows that all exist."""
        self.table(source, method)
        self.ready_rows(source)
        table = source.table

        def prepare():
            self.fill(source)
            self.cluster.sql(f"vacuum {table}")

        def staged() -> Cost:
            return self.cluster.psql(
                f"begin;\ncreate temporary table stage (like {table} including defaults) on commit drop;\n"
                f"\\copy stage ({COLUMNS}) from '{self._file(source, 'copy')}'\n"
                f"insert into {table} ({COLUMNS}) select id, nextval('transaction_id_seq'), cts, now(), resource_type, status, resource from stage\n"
                "on conflict (id) do update set txid = excluded.txid, ts = excluded.ts, resource_type = excluded.resource_type,\n"
                "status = 'updated', resource = excluded.resource;\ncommit;"
            )

        def ours() -> Cost:
            return self.cluster.psql(f"select bulk.load('{source.gz}', '{source.resource_type}', fhir => true);")

        def result():
            return self.contents(table), self.cluster.sql(f"select string_agg(distinct status::text, ',') from {table}")

        contenders = [Contender(STAGE, staged, prepare, result), Contender(LOAD, ours, prepare, result)]
        name = f"load of {source.resource_type} over rows that exist, {method}"
        return hold(self.cluster, name, source.rows, source.bytes, contenders, self.rounds, self.say)

    def _whole(self, script: str) -> Cost:
        """A script with the processor time of all processes that it started."""
        before = self.cluster.ended_cpu()
        cost = self.cluster.psql("set bulk.allowed_hosts = '127.0.0.1';\n" + script)
        return replace(cost, cpu_seconds=self.cluster.ended_cpu() - before)

    def _loads(self, sources: list[Source], url) -> Cost:
        return self._whole("".join(f"select bulk.load('{url(source.gz)}', '{source.resource_type}', fhir => true);\n" for source in sources))

    def _all(self, name: str, sources: list[Source], runs: dict, more: str = "") -> Contest:
        """Ways to load all files into tables that are not there."""
        tables = ", ".join(f'"{source.table}", "{source.table}_history"' for source in sources)

        def prepare():
            self.cluster.sql(f"drop table if exists {tables}")
            if more:
                self.cluster.sql(more)

        def result():
            return [self.contents(f'"{source.table}"') for source in sources]

        contenders = [Contender(label, run, prepare, result) for label, run in runs.items()]
        rows, bytes = sum(source.rows for source in sources), sum(source.bytes for source in sources)
        return hold(self.cluster, name, rows, bytes, contenders, self.rounds, self.say)

    def bucket(self, sources: list[Source], s3: S3) -> Contest:
        """All files from disk in the session, and from an S3 server by four workers."""
        params = json.dumps({**s3.params, "format": "fhir", "thread-num": 4, "disable-idx?": True})

        def loaded() -> Cost:
            cost = self._whole(f"select bulk.load_from_bucket('{params}')->>'id' as id \\gset\nselect bulk.wait(:'id');")
            if failed := self.cluster.sql("select count(*) from bulk.loader_file where status <> 'done'"):
                raise RuntimeError(f"{failed} files of the bucket are not loaded")
            return cost

        runs = {FROM_DISK: lambda: self._loads(sources, lambda file: file), BUCKET: loaded}
        return self._all("load of all files of a bucket", sources, runs, "delete from bulk.loader_file")

    def export(self, sources: list[Source], s3: S3) -> Contest:
        """All tables to gzipped files of the server, one after another, and to an S3 server."""
        sql = self.cluster.sql
        for source in sources:
            sql(f'drop table if exists "{source.table}", "{source.table}_history"')
            sql(f"select bulk.load('{source.gz}', '{source.resource_type}', fhir => true)")
            sql(f'vacuum analyze "{source.table}"')
        sql(f"select bulk.set_account('{json.dumps({**s3.params['account'], 'resourceType': 'AwsAccount', 'id': 'bench'})}')")
        folder = self.directory / "copied"
        folder.mkdir(mode=0o777, exist_ok=True)
        folder.chmod(0o777)
        merged = MERGED_LINE
        copies = "".join(
            f"copy (select {merged} from \"{source.table}\") to program 'gzip -1 > {folder}/{source.resource_type}.ndjson.gz';\n" for source in sources)
        storage = "set bulk.storage_backend = 'aws';\nset bulk.storage_aws_bucket = 'bucket';\n"
        kick_off = """select headers->>'content-location' as at from bulk.export('system', '{"_outputFormat": "application/fhir+ndjson+gzip"}') \\gset"""
        wait = "select bulk.wait(split_part(:'at', '$export-status/', 2));"

        def exported() -> Cost:
            cost = self._whole(f"{storage}{kick_off}\n{wait}")
            if (state := sql("select state from bulk.job where kind = 'export' order by created desc limit 1")) != "completed":
                raise RuntimeError(f"the export ended as {state}")
            return cost

        def files() -> list[Path]:
            last = sql("select folder from bulk.export_run order by number desc limit 1")
            return list((s3.bucket / last).rglob("*.gz"))

        def lines(paths) -> dict:
            found: dict[str, int] = {}
            for path in paths:
                with gzip.open(path) as packed:
                    kind = re.match("[A-Za-z]+", path.name).group()
                    found[kind] = found.get(kind, 0) + sum(1 for _ in packed)
            return found

        def size(paths) -> int:
            return sum(path.stat().st_size for path in paths)

        contenders = [
            Contender(TO_GZIP, lambda: self.cluster.psql(copies), result=lambda: lines(folder.iterdir()), size=lambda: size(folder.iterdir())),
            Contender(EXPORT, exported, result=lambda: lines(files()), size=lambda: size(files())),
        ]
        rows, bytes = sum(source.rows for source in sources), sum(source.bytes for source in sources)
        return hold(self.cluster, "export of all types", rows, bytes, contenders, self.rounds, self.say)

    def http(self, source: Source, gateway: Gateway) -> Contest:
        """A type's dump by psql, as it asks by itself and in binary, and by curl through the gateway."""
        self.table(source, "lz4")
        self.fill(source)
        self.cluster.sql(f"vacuum analyze {source.table}")
        dump = f"select bulk.dump_bytes('{source.resource_type}')"
        contenders = [
            Contender(PSQL, lambda: self.cluster.psql(f"{dump};")),
            Contender(PSQL_BINARY, lambda: self.cluster.psql(f"copy ({dump}) to stdout (format binary);")),
            Contender(GATEWAY, lambda: gateway.fetch(f"/{source.resource_type}/$dump")),
        ]
        contest = hold(self.cluster, f"dump over HTTP of {source.resource_type}", source.rows, source.bytes, contenders, self.rounds, self.say)
        self.say(f"  first bytes through the gateway after {', '.join(f'{1000 * first:.0f}' for first in sorted(gateway.first_bytes))} ms")
        return contest

    def imports(self, sources: list[Source], web: Web) -> Contest:
        """All files from a web server, in the session and in the background."""
        inputs = ", ".join(f'{{"resourceType": "{source.resource_type}", "url": "{web.url(source.gz)}"}}' for source in sources)
        number = itertools.count()

        def imported() -> Cost:
            name = f"bench-{next(number)}"
            cost = self._whole(f"select bulk.import('{{\"id\": \"{name}\", \"inputs\": [{inputs}]}}', fhir => true);\nselect bulk.wait('{name}');")
            if (state := self.cluster.sql(f"select state from bulk.job where id = '{name}'")) != "done":
                raise RuntimeError(f"the import ended as {state}")
            return cost

        return self._all("import of all files", sources, {LOADS: lambda: self._loads(sources, web.url), IMPORT: imported})

    def dump(self, source: Source, method: str) -> list[Contest]:
        """Into psql and /dev/null; the whole body as chunks; gzipped."""
        self.table(source, method)
        self.fill(source)
        self.cluster.sql(f"vacuum analyze {source.table}")
        kind, table = source.resource_type, source.table
        self._check_dump(source)
        merged = MERGED_LINE

        def copy(name: str, query: str, options: str = "") -> Contender:
            return Contender(name, lambda: self.cluster.psql(f"copy ({query}) to stdout{options};"))

        def chunks(name: str, arguments: str) -> Contender:
            return copy(name, f"select bulk.dump_bytes('{kind}'{arguments})", " (format binary)")

        def contest(what: str, contenders: list[Contender]) -> Contest:
            return hold(self.cluster, f"{what} of {kind}, {method}", source.rows, source.bytes, contenders, self.rounds, self.say)

        to_gzip = Contender(GZIP, lambda: self.cluster.psql(f"\\copy (select {merged} from {table}) to program 'gzip -1 > /dev/null'"))
        return [
            contest("dump", [
                copy(MERGED, f"select {merged} from {table}"),
                copy(DUMP, f"select bulk.dump('{kind}')"),
                copy(DUMP_FHIR, f"select bulk.dump('{kind}', fhir => true)"),
            ]),
            contest("dump as bytes", [
                copy(BARE, f"select resource::text from {table}"),
                chunks(BYTES, ""),
                chunks(BYTES_FHIR, ", fhir => true"),
            ]),
            contest("dump, gzipped", [to_gzip, chunks(BYTES_GZIP, ", fhir => true, gzip => true")]),
            *(contest(f"query of {what} columns as {form}", self._query(query.format(table=table), form, copy)) for what, query in QUERIES for form in FORMS),
        ]

    def _query(self, query: str, form: str, copy) -> list[Contender]:
        """The same rows by COPY and by us, whose bytes must be the same."""
        ours = f"select bulk.dump_sql_bytes($q${query}$q$, '{form}')"
        theirs = f"{query}) to stdout (format {FORMS[form]}"
        with self.cluster.admin.cursor() as cursor, cursor.copy(f"copy ({theirs})") as rows:
            expected = b"".join(rows)
        found = b"".join(bytes(chunk) for (chunk,) in self.cluster.admin.execute(ours))
        if found != expected:
            raise RuntimeError(f"bulk.dump_sql and COPY differ: {query} as {form}")
        return [
            Contender(COPY_QUERY, lambda: self.cluster.psql(f"copy ({theirs});")),
            copy(QUERY, ours, " (format binary)"),
        ]

    def _check_dump(self, source: Source):
        """Every line says what its row says."""
        wrong = self.cluster.sql(
            f"select count(*) from (select bulk.dump('{source.resource_type}')::jsonb line) d full join {source.table} t on t.id = line->>'id' "
            "where (line - '{id,meta,resourceType}'::text[] = resource - 'meta') is not true or line->'meta'->>'versionId' is distinct from txid::text"
        )
        if wrong:
            raise RuntimeError(f"{wrong} lines of the dump are wrong")

    def gzip_sizes(self, source: Source) -> tuple[int, int]:
        """Bytes of our gzip and of `gzip -1`, of the same lines."""
        lines = self._file(source, "fhir")
        dump = f"select bulk.dump('{source.resource_type}', fhir => true)"
        self.cluster.psql(f"\\copy ({dump}) to '{lines}' (format csv, quote e'\\x01', delimiter e'\\x02')\n\\! gzip -1 -f {lines}")
        arguments = f"'{source.resource_type}', fhir => true, gzip => true"
        ours = self.cluster.sql(f"select sum(octet_length(chunk)) from (select bulk.dump_bytes({arguments}) chunk) c")
        return int(ours), lines.with_suffix(".fhir.gz").stat().st_size
