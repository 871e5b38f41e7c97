//! What `bulk.dump_sql` gives in each format, beside what COPY and psql make of the same query, and what it refuses.

use crate::support::cluster::{replay, shared};
use crate::support::statement::{failure, value, wait_until};
use crate::support::trial::{SERVER, parts, test};
use flate2::read::MultiGzDecoder;
use postgres::Client;
use std::io::{Read, Write};

parts!(SERVER);

/// A table with a column of every kind, and rows of what is easily written wrongly.
fn of_all_kinds(client: &mut Client) {
    client
        .batch_execute(
            r#"create schema "odd Schema"; create type "odd Schema"."Pair" as (a text, "B" int); create domain small as int check (value < 100);
            create type mood as enum ('ok', 'not "ok"');
            create table kinds (id int primary key, "Te xt" text, v varchar(20), c char(5), n numeric, f8 float8, f4 float4, i8 bigint, b boolean, j jsonb, js json, d date,
                t timestamptz, iv interval, ba bytea, ta text[], ia int[], pair "odd Schema"."Pair", r int4range, u uuid, s small, m mood, ip inet, bits bit varying, tm time, b5 bit(5), b5a bit(5)[], c5a char(5)[], f8a float8[], mo money, rc regclass, n2 numeric(10,2), iv0 interval(0));
            insert into kinds (id) values (1);
            insert into kinds values
              (2, E'a\tb\nc\\d\r\x01"e"', '', 'ab', 1.10, 1e300, 0.1, -9223372036854775808, true, '{"a": "x\ty\u00e9\"\\", "n": 1.10}', E'{ "a" :\n 1 }', '2024-02-29',
               '2024-02-29 12:00:00.123456+00', '1 year 2 days -03:04:05.6', '\x00ff5c', array['a,b', null, '', 'NULL', 'q"'], array[[1,2],[3,null]], row('x''y', 7), '[1,5)',
               'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 7, 'not "ok"', '10.0.0.1/8', '10110', '23:59:59.999'),
              (3, '\.', E'\\N', '', 'NaN', 'Infinity', '-Infinity', 0, false, 'null', 'null', 'infinity', '-infinity', '0', '', '{}', '{}', row(null, null), 'empty', null, null, 'ok', '::1', '', '00:00'),
              (4, 'it''s, "so"', 'x', 'é', 12345678901234567890.123456789, 'NaN', 1e-30, 1, null, '[1, "two", {"three": [true, null]}]', '"x"', '0044-03-15 BC', '0044-03-15 BC', '-1 day', null,
               array['x'], null, row('', 0), '(,)', null, 1, null, null, '1', '12:00');
            update kinds set b5 = '10110', b5a = array['10110', '00001']::bit(5)[], c5a = array['abcde', 'fg'], f8a = array['-0', 'NaN', 1e-300]::float8[], f8 = '-0', f4 = '-0', mo = 1234.5, rc = 'kinds', n2 = 1.5,
                iv0 = '1 day 2.6 seconds' where id = 4;
            insert into kinds (id, "Te xt", j) select g, repeat('long ', g), jsonb_build_object('k', repeat('v"', g * 100)) from generate_series(5, 40) g"#,
        )
        .unwrap();
    // A server may be built without XML.
    let _ = client.batch_execute(
        "alter table kinds add x xml; update kinds set x = case id when 2 then '<a>&amp;</a>' when 4 then '<b/>' end::xml where id < 5",
    );
}

fn copied(client: &mut Client, copy: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    client.copy_out(copy).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

fn body(client: &mut Client, query: &str, format: &str, options: &str) -> Vec<u8> {
    let chunks = client.query("select bulk.dump_sql_bytes($1, $2, $3::text::jsonb)", &[&query, &format, &options]).unwrap();
    chunks.iter().map(|row| row.get::<_, Vec<u8>>(0)).collect::<Vec<_>>().concat()
}

fn lines(client: &mut Client, query: &str, format: &str, options: &str) -> Vec<String> {
    let rows = client.query("select bulk.dump_sql($1, $2, $3::text::jsonb)", &[&query, &format, &options]).unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

test!("tsv and csv are what COPY writes, whatever the types, the nulls and the options", as_copy);
fn as_copy() {
    let database = shared().database();
    let mut client = database.connect();
    of_all_kinds(&mut client);
    let queries = [
        "table kinds",
        "select * from kinds order by i8 desc nulls last, id",
        "select \"Te xt\" from kinds order by id",
        "select id, j->'a', row(id, \"Te xt\") as record, array_agg(v) over () from kinds order by d, id",
        "values (null, ''), ('x', null)",
        "with recursive t(n) as (select 1 union all select n + 1 from t where n < 3000) select n, n::text, md5(n::text) from t",
        "select id from kinds where false",
        "select from kinds limit 1",
        "select '\\.' as x union all select '' union all select null",
    ];
    for settings in [
        "",
        "set datestyle = 'German'; set intervalstyle = iso_8601; set bytea_output = escape; set extra_float_digits = 0; set timezone = 'Asia/Kolkata'",
    ] {
        client.batch_execute(settings).unwrap();
        for query in queries {
            for (format, options, copy) in [
                ("tsv", "{}", ""),
                ("tsv", r#"{"null": "NIL", "delimiter": "|", "header": true}"#, "null 'NIL', delimiter '|', header"),
                ("csv", "{}", "format csv"),
                ("csv", r#"{"null": "x", "delimiter": ";", "header": true}"#, "format csv, null 'x', delimiter ';', header"),
            ] {
                let expected = copied(
                    &mut client,
                    &format!("copy ({query}) to stdout {}", if copy.is_empty() { String::new() } else { format!("({copy})") }),
                );
                let found = body(&mut client, query, format, options);
                assert_eq!(String::from_utf8_lossy(&found), String::from_utf8_lossy(&expected), "{query} as {format} with {options}");
                let apart: Vec<u8> =
                    lines(&mut client, query, format, options).iter().flat_map(|line| [line.as_bytes(), b"\n"].concat()).collect();
                assert_eq!(apart, expected, "{query} as {format}, line by line");
            }
        }
    }
    let compressed: Vec<Vec<u8>> =
        client.query("select bulk.dump_sql_bytes('table kinds', gzip => true)", &[]).unwrap().iter().map(|row| row.get(0)).collect();
    let mut plain = Vec::new();
    MultiGzDecoder::new(compressed.concat().as_slice()).read_to_end(&mut plain).unwrap();
    assert_eq!(plain, body(&mut client, "table kinds", "tsv", "{}"));
}

test!("the documented query gives the documented lines", documented);
fn documented() {
    let database = shared().database();
    let mut client = database.connect();
    client
        .batch_execute(
            r#"select bulk.create_resource_table('Patient');
            insert into patient (id, txid, status, resource) values ('pt-1', 1, 'created', '{"name": [{"given": ["Alice"]}]}'), ('pt-2', 2, 'created', '{"name": [{"given": ["Bob"]}]}'),
                ('pt-3', 3, 'created', '{"name": [{"given": ["Charles"]}]}')"#,
        )
        .unwrap();
    let found = body(&mut client, "select id, resource#>>'{name,0,given,0}' from patient", "tsv", "{}");
    assert_eq!(String::from_utf8(found).unwrap(), "pt-1\tAlice\npt-2\tBob\npt-3\tCharles\n");
    // As the 2019 page asks for it, and what psql reads back.
    assert_eq!(lines(&mut client, "select id from patient", "csv", "{}"), ["pt-1", "pt-2", "pt-3"]);
    client.batch_execute("create table again (like patient)").unwrap();
    let found = body(&mut client, "table patient", "tsv", "{}");
    let mut writer = client.copy_in("copy again from stdin").unwrap();
    writer.write_all(&found).unwrap();
    assert_eq!(writer.finish().unwrap(), 3);
    assert_eq!(value(&mut client, "select count(*) from (table again except table patient) x"), "0");
}

test!("INSERT statements that psql replays make equal rows, under any settings", replayed);
/// Runs a script by psql on a database.
fn replayed() {
    let database = shared().database();
    let mut client = database.connect();
    of_all_kinds(&mut client);
    client.batch_execute(r#"create table "odd Schema"."Kinds again" (like kinds)"#).unwrap();
    let options = r#"{"table": "\"odd Schema\".\"Kinds again\""}"#;
    // Written under settings that print ambiguously, read under those that read otherwise.
    client
        .batch_execute(
            "set datestyle = 'SQL, DMY'; set intervalstyle = sql_standard; set bytea_output = escape; set extra_float_digits = -3",
        )
        .unwrap();
    let script = body(&mut client, "select * from kinds where id <> 3 or id is null", "sql", options);
    assert_eq!(value(&mut client, "select current_setting('datestyle') || current_setting('extra_float_digits')"), "SQL, DMY-3");
    let settings =
        b"set standard_conforming_strings = off; set escape_string_warning = off; set datestyle = 'ISO, MDY'; set search_path = pg_temp;\n";
    replay(&mut database.psql(), &[settings, script.as_slice()].concat());
    // What has no digits, under the default settings.
    let script = body(&mut client, "select * from kinds where id = 3", "sql", options);
    replay(&mut database.psql(), &script);
    let differ = r#"select count(*) from (select k::text from kinds k except all select k::text from "odd Schema"."Kinds again" k) x"#;
    assert_eq!(value(&mut client, differ), "0");
    assert_eq!(value(&mut client, r#"select count(*) from "odd Schema"."Kinds again""#), "40");
    let bytes = r#"select count(*) from kinds k join "odd Schema"."Kinds again" a using (id) where not record_image_eq(row(k.j, k.f8, k.f4, k.n, k.ba, k.c, k.f8a, k.c5a, k.b5a, k.mo), row(a.j, a.f8, a.f4, a.n, a.ba, a.c, a.f8a, a.c5a, a.b5a, a.mo))"#;
    assert_eq!(value(&mut client, bytes), "0");
    assert_eq!(lines(&mut client, "select from kinds limit 1", "sql", r#"{"table": "x"}"#), ["INSERT INTO x DEFAULT VALUES;"]);
    // The settings are those of the printing, not the query's.
    let shown = lines(&mut client, "select current_setting('datestyle') as d, '2024-02-01'::date::text as t", "sql", r#"{"table": "x"}"#);
    assert_eq!(shown, ["INSERT INTO x (d, t) VALUES ('SQL, DMY', '01/02/2024');"]);
    // Rows that lie outside of their tuples come a few at a time.
    client
        .batch_execute(
            "create table wide (t text); alter table wide alter t set storage external; insert into wide select repeat('x', 2000000) from generate_series(1, 40)",
        )
        .unwrap();
    let pid: i32 = client.query_one("select pg_backend_pid()", &[]).unwrap().get(0);
    let peak = crate::support::memory_peak::Peak::watch(pid);
    let bytes = value(&mut client, r#"select sum(length(l)) from (select bulk.dump_sql('table wide', 'sql', '{"table": "x"}') l) x"#);
    assert!(bytes.parse::<u64>().unwrap() > 80_000_000 && peak.bytes() < 64 << 20, "{}", peak.bytes());
    assert_eq!(failure(&mut client, "select bulk.dump_sql('select row(1, 2) as r', 'sql', '{\"table\": \"x\"}')").code, "0A000");
}

test!("ndjson is a JSON object a row, elastic-bulk an action and a source", json);
fn json() {
    let database = shared().database();
    let mut client = database.connect();
    of_all_kinds(&mut client);
    for format in ["ndjson", "json"] {
        let found = lines(&mut client, "select * from kinds order by id", format, "{}");
        assert!(found.iter().all(|line| !line.contains('\n')));
        let expected: Vec<String> = client
            .query("select row_to_json(k)::jsonb::text from kinds k order by id", &[])
            .unwrap()
            .iter()
            .map(|row| row.get(0))
            .collect();
        let canonical: Vec<String> = client
            .query("select line::jsonb::text from unnest($1::text[]) line", &[&found])
            .unwrap()
            .iter()
            .map(|row| row.get(0))
            .collect();
        assert_eq!(canonical, expected);
        assert_eq!(body(&mut client, "select * from kinds order by id", format, "{}"), [found.join("\n").as_bytes(), b"\n"].concat());
    }
    assert_eq!(lines(&mut client, "select 1.10 as a, null as b", "ndjson", "{}"), [r#"{"a":1.10,"b":null}"#]);
    let query = "select 'p\"1' as _id, 'pat' as _index, 5 as n union all select null, null, 6";
    assert_eq!(
        lines(&mut client, query, "elastic-bulk", r#"{"index": "rest"}"#),
        [r#"{"index":{"_id":"p\"1","_index":"pat"}}"#, r#"{"n":5}"#, r#"{"index":{"_index":"rest"}}"#, r#"{"n":6}"#]
    );
    assert_eq!(
        lines(&mut client, "select 7 as id, 'x' as t", "elastic-bulk", r#"{"index": "rest", "id": "id"}"#),
        [r#"{"index":{"_id":"7","_index":"rest"}}"#, r#"{"id":7,"t":"x"}"#]
    );
    assert_eq!(lines(&mut client, "select 7 as id", "elastic-bulk", "{}"), [r#"{"index":{}}"#, r#"{"id":7}"#]);
    assert_eq!(
        lines(&mut client, r#"select '"x"'::jsonb as _id, '"y"'::json as _index"#, "elastic-bulk", "{}"),
        [r#"{"index":{"_id":"x","_index":"y"}}"#, "{}"]
    );
    assert_eq!(failure(&mut client, "select bulk.dump_sql('select repeat(''x'', 600) as _id, 1 as a', 'elastic-bulk')").code, "54000");
    for format in ["ndjson", "elastic-bulk"] {
        assert_eq!(failure(&mut client, &format!("select bulk.dump_sql('select 1 as a, 2 as a', '{format}')")).code, "42701");
    }
}

test!("what does more than read is refused before the first row", refused);
fn refused() {
    let database = shared().database();
    let mut client = database.connect();
    client.batch_execute("create table t (n int); insert into t values (1)").unwrap();
    for (query, code) in [
        ("select set_config('role', 'pg_monitor', true)", "42501"),
        ("select set_config('session_authorization', 'pg_monitor', false)", "42501"),
        ("insert into t values (2) returning n", "25006"),
        ("update t set n = 3 returning n", "25006"),
        ("delete from t", "25006"),
        ("with w as (delete from t returning n) select * from w", "25006"),
        ("select * into u from t", "25006"),
        ("create table u as select * from t", "25006"),
        ("select * from t for update", "25006"),
        ("select * from (select * from t for share) x", "25006"),
        ("copy t to stdout", "25006"),
        ("commit", "25006"),
        ("begin", "25006"),
        ("rollback", "25006"),
        ("set role none", "25006"),
        ("explain analyze insert into t values (4)", "25006"),
        ("truncate t", "25006"),
        ("do $$ begin end $$", "25006"),
        ("vacuum", "25006"),
        ("declare c cursor for select 1", "25006"),
        ("merge into t using t s on t.n = s.n when matched then delete", "25006"),
        ("select 1; select 2", "42601"),
        ("select 1; delete from t", "42601"),
        ("", "42601"),
        ("   -- nothing", "42601"),
        ("selec 1", "42601"),
        ("select $1", "42P02"),
        ("select * from missing", "42P01"),
        ("select nextval(pg_get_serial_sequence('s', 'n'))", "42P01"),
    ] {
        let error = client.query("select bulk.dump_sql($1)", &[&query]).expect_err(query);
        assert_eq!(error.code().expect(query).code(), code, "{query}: {error}");
    }
    assert_eq!(value(&mut client, "select array_agg(n) from t"), "{1}");
    // One statement may end as statements do.
    assert_eq!(lines(&mut client, "select 1 ; ", "tsv", "{}"), ["1"]);
    assert_eq!(failure(&mut client, "select bulk.dump_sql(null)").code, "22004");
    assert_eq!(failure(&mut client, "select bulk.dump_sql('delete from t')").message, "cannot run DELETE: bulk.dump_sql only reads");
}

test!("functions that a query calls cannot write, and the transaction can again afterwards", read_only);
fn read_only() {
    let database = shared().database();
    let mut client = database.connect();
    client
        .batch_execute(
            "create table t (n int); create sequence s;
            create function writes() returns int language plpgsql as $$ begin insert into t values (1); return 1; end $$;
            create function escapes() returns int language plpgsql as $$ begin perform set_config('transaction_read_only', 'off', true); insert into t values (2); return 1; end $$;
            create function promises() returns int immutable language plpgsql as $$ begin perform writes(); return 1; end $$;
            create function resets() returns int language plpgsql as $$ begin reset transaction_read_only; insert into t values (4); return 1; end $$;
            create type mood as enum ('a'); create function as_json(mood) returns json language plpgsql as $$ begin perform writes(); return '1'; end $$; create cast (mood as json) with function as_json(mood);
            create function hides() returns int language plpgsql as $$ begin begin insert into t values (3); exception when others then return 0; end; return 1; end $$",
        )
        .unwrap();
    let file = crate::support::source::File::new(b"{\"id\":\"1\"}\n");
    let load = format!("select bulk.load('{}', 'Patient')", file.url());
    for query in
        ["select writes()", "select escapes()", "select nextval('s')", "select g, writes() from generate_series(1, 5) g", load.as_str()]
    {
        let error = client.query("select bulk.dump_sql($1)", &[&query]).expect_err(query);
        assert!(["25006", "25001"].contains(&error.code().unwrap().code()), "{query}: {error}");
    }
    assert_eq!(failure(&mut client, "select bulk.dump_sql('select ''a''::mood as m', 'ndjson')").code, "25006");
    assert_eq!(lines(&mut client, "select hides()", "tsv", "{}"), ["0"]);
    // Between two rows, after an error in a savepoint and at the end the caller's own statements write.
    client.batch_execute("begin; declare c cursor for select bulk.dump_sql('select g from generate_series(1, 3000) g'); fetch 1 from c; insert into t values (10)").unwrap();
    client.batch_execute("savepoint a").unwrap();
    client.batch_execute("select bulk.dump_sql('select writes()')").unwrap_err();
    client.batch_execute("rollback to a; insert into t values (11); fetch 2500 from c; insert into t values (12); close c; insert into t values (13); commit").unwrap();
    assert_eq!(value(&mut client, "select array_agg(n) from t"), "{10,11,12,13}");
    assert_eq!(failure(&mut client, "begin read only; select bulk.dump_sql('select 1'); insert into t values (1)").code, "25006");
    client.batch_execute("rollback").unwrap();
}

test!("a failing row is an error, an early end leaves nothing behind", ends);
fn ends() {
    let database = shared().database();
    let mut client = database.connect();
    let failing = "select bulk.dump_sql('select 1 / (g - 5000) from generate_series(1, 10000) g')";
    assert_eq!(failure(&mut client, failing).code, "22012");
    let limited =
        "select count(*) from (select bulk.dump_sql('select g, repeat(''x'', 1000) from generate_series(1, 1000000) g') limit 10) x";
    assert_eq!(value(&mut client, limited), "10");
    client.batch_execute("begin; declare c cursor for select bulk.dump_sql_bytes('select * from generate_series(1, 1000000)', gzip => true); fetch 3 from c; close c; commit").unwrap();
    let pid: i32 = client.query_one("select pg_backend_pid()", &[]).unwrap().get(0);
    wait_until("the threads are gone", || std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().count() == 1);
    assert_eq!(value(&mut client, "select count(*) from pg_stat_progress_copy where pid = pg_backend_pid()"), "0");
}

test!("options that do not fit are named", options);
fn options() {
    let database = shared().database();
    let mut client = database.connect();
    for (format, options, code, hint) in [
        ("xml", "{}", "22023", ""),
        ("TSV", "{}", "22023", ""),
        ("tsv", r#"{"table": "x"}"#, "22023", "Known options are header, null, delimiter."),
        ("sql", "{}", "22023", ""),
        ("sql", r#"{"table": "a.b.c.d"}"#, "22023", ""),
        ("sql", r#"{"table": "x; drop table y"}"#, "22023", ""),
        ("sql", r#"{"table": 5}"#, "22023", ""),
        ("ndjson", r#"{"header": true}"#, "22023", "The format takes no options."),
        ("tsv", r#"{"delimiter": "ab"}"#, "22023", ""),
        ("tsv", r#"{"delimiter": "\n"}"#, "22023", ""),
        ("tsv", r#"{"delimiter": "n"}"#, "22023", ""),
        ("csv", r#"{"delimiter": "\""}"#, "22023", ""),
        ("csv", r#"{"null": "a,b"}"#, "22023", ""),
        ("csv", r#"{"header": "yes"}"#, "22023", ""),
        ("elastic-bulk", r#"{"id": "missing"}"#, "22023", ""),
        ("tsv", "[]", "22023", ""),
        ("tsv", &format!(r#"{{"null": "{}"}}"#, "x".repeat(2000)), "22023", ""),
    ] {
        let failed = failure(&mut client, &format!("select bulk.dump_sql('select 1 as n', '{format}', '{options}')"));
        assert_eq!(failed.code, code, "{format} {options}: {failed:?}");
        assert!(hint.is_empty() || failed.hint == hint, "{failed:?}");
    }
    // What is null is not given.
    assert_eq!(value(&mut client, r#"bulk.dump_sql('select 1', null, null)"#), "1");
    assert_eq!(value(&mut client, r#"bulk.dump_sql('select 1', 'tsv', '{"null": null}')"#), "1");
}

test!("a query streams in flat memory and is gzipped on demand", streams);
fn streams() {
    let database = shared().database();
    let mut client = database.connect();
    let pid: i32 = client.query_one("select pg_backend_pid()", &[]).unwrap().get(0);
    let query = "select g, md5(g::text), repeat(''x'', 150) from generate_series(1, 1000000) g";
    // The first rows come before the last are made.
    client.batch_execute("begin; declare c no scroll cursor for select length(bulk.dump_sql('select g, pg_sleep(case when g > 300 then 60 else 0 end) from unnest(array(select generate_series(1, 400))) g'))").unwrap();
    client.batch_execute("set local statement_timeout = '5s'; fetch 10 from c; rollback").unwrap();
    for (call, least) in [
        (format!("length(bulk.dump_sql('{query}'))"), 180_000_000),
        (format!("length(bulk.dump_sql_bytes('{query}', 'ndjson'))"), 180_000_000),
        (format!("length(bulk.dump_sql_bytes('{query}', 'csv', gzip => true))"), 10_000_000),
    ] {
        client.batch_execute(&format!("begin; declare c no scroll cursor for select {call}")).unwrap();
        let peak = crate::support::memory_peak::Peak::watch(pid);
        let mut bytes = 0;
        loop {
            let rows = client.query("fetch 10000 c", &[]).unwrap();
            if rows.is_empty() {
                break;
            }
            bytes += rows.iter().map(|row| i64::from(row.get::<_, i32>(0))).sum::<i64>();
        }
        assert!(bytes > least && peak.bytes() < 50 << 20, "{call}: {} of {bytes}", peak.bytes());
        client.batch_execute("commit").unwrap();
    }
}

test!("a query reads what its caller may read and its statement sees", rights);
fn rights() {
    let database = shared().database();
    let mut client = database.connect();
    let role = format!("reader_{}", database.name);
    client
        .batch_execute(&format!(
            "create role {role} login; create table secret (n int); insert into secret values (1), (2); create table shown (n int, owner text); insert into shown values (1, '{role}'), (2, 'other');
             alter table shown enable row level security; create policy own on shown using (owner = current_user); grant select on shown to {role}"
        ))
        .unwrap();
    let mut reader = database.connect_as(&role);
    assert_eq!(failure(&mut reader, "select bulk.dump_sql('select * from secret')").code, "42501");
    assert_eq!(failure(&mut reader, "select bulk.dump_sql('select pg_read_file(''/etc/passwd'')')").code, "42501");
    assert_eq!(lines(&mut reader, "select n from shown", "tsv", "{}"), ["1"]);
    // What the transaction wrote is there; what another commits in the middle of the statement is not.
    client.batch_execute("begin; insert into secret values (3)").unwrap();
    assert_eq!(lines(&mut client, "select count(*) from secret", "tsv", "{}"), ["3"]);
    client
        .batch_execute(
            "rollback; begin; declare c cursor for select bulk.dump_sql('select n from secret, generate_series(1, 3000)'); fetch 1 from c",
        )
        .unwrap();
    database.connect().batch_execute("insert into secret values (4)").unwrap();
    assert_eq!(client.query("fetch all from c", &[]).unwrap().len(), 5999);
    client.batch_execute("commit").unwrap();
}

test!("the README's line for psql writes the file that it says", one_liner);
fn one_liner() {
    let readme = include_str!("../../README.md");
    let lines: Vec<&str> = readme.lines().filter(|line| line.starts_with("psql ") && line.contains("bulk.dump_sql(")).collect();
    assert_eq!(lines.len(), 1);
    let database = shared().database();
    let mut client = database.connect();
    client
        .batch_execute(
            r#"select bulk.create_resource_table('Patient');
            insert into patient (id, txid, status, resource) select g::text, g, 'created', jsonb_build_object('name', jsonb_build_array(jsonb_build_object('family', E'a "b",\nc' || g))) from generate_series(1, 5000) g"#,
        )
        .unwrap();
    let directory = crate::support::shell::run_in_shell(&database, lines[0]);
    let written = std::fs::read(directory.path().join("patients.csv")).unwrap();
    let query = "select id, resource#>>'{name,0,family}' as family from patient order by id";
    let expected = copied(&mut client, &format!("copy ({query}) to stdout (format csv, header)"));
    assert_eq!(String::from_utf8(written).unwrap(), String::from_utf8(expected).unwrap());
}
