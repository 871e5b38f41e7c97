//! What `bulk.dump` and `bulk.dump_bytes` give, and that they hold nothing while and after they do.

use crate::support::cluster::shared;
use crate::support::shell::run_in_shell;
use crate::support::statement::{failure, value, wait_until};
use crate::support::trial::{SERVER, parts, test};
use flate2::read::MultiGzDecoder;
use postgres::Client;
use std::io::Read;

parts!(SERVER);

test!("the documented lines come out byte for byte", documented);
fn documented() {
    let database = shared().database();
    let mut client = database.connect();
    client
        .batch_execute(
            r#"select bulk.create_resource_table('Patient'), bulk.create_resource_table('Appointment');
            insert into patient (id, txid, cts, ts, status, resource) select id, txid, '2021-06-10 08:26:10.707454+00', '2021-06-10 08:26:10.707454+00', 'created', resource::jsonb
            from (values ('pt-1', 481, '{"name": [{"given": ["Alice"]}]}'), ('pt-2', 482, '{"name": [{"given": ["Bob"]}]}'),
                ('pt-3', 483, '{"name": [{"given": ["Charles"]}], "citizenship": [{"code": {"text": "ru"}}]}')) x(id, txid, resource);
            insert into appointment (id, txid, cts, ts, status, resource) values ('ap-1', 484, '2021-06-10 08:26:10.707454+00', '2021-06-10 08:26:10.707454+00', 'created',
                '{"status": "fulfilled", "participant": [{"actor": {"id": "pt-1", "resourceType": "Patient"}, "status": "accepted"}]}');
            set timezone = 'Asia/Kolkata'; set datestyle = 'German'"#,
        )
        .unwrap();
    let lines =
        |client: &mut Client, query: &str| -> Vec<String> { client.query(query, &[]).unwrap().iter().map(|row| row.get(0)).collect() };
    assert_eq!(
        lines(&mut client, "select bulk.dump('Patient')"),
        [
            r#"{"id": "pt-1", "meta": {"createdAt": "2021-06-10T08:26:10.707454Z", "versionId": "481", "lastUpdated": "2021-06-10T08:26:10.707454Z"}, "name": [{"given": ["Alice"]}], "resourceType": "Patient"}"#,
            r#"{"id": "pt-2", "meta": {"createdAt": "2021-06-10T08:26:10.707454Z", "versionId": "482", "lastUpdated": "2021-06-10T08:26:10.707454Z"}, "name": [{"given": ["Bob"]}], "resourceType": "Patient"}"#,
            r#"{"id": "pt-3", "meta": {"createdAt": "2021-06-10T08:26:10.707454Z", "versionId": "483", "lastUpdated": "2021-06-10T08:26:10.707454Z"}, "name": [{"given": ["Charles"]}], "citizenship": [{"code": {"text": "ru"}}], "resourceType": "Patient"}"#,
        ]
    );
    assert_eq!(
        lines(&mut client, "select bulk.dump('Appointment')"),
        [
            r#"{"id": "ap-1", "meta": {"createdAt": "2021-06-10T08:26:10.707454Z", "versionId": "484", "lastUpdated": "2021-06-10T08:26:10.707454Z"}, "status": "fulfilled", "participant": [{"actor": {"id": "pt-1", "resourceType": "Patient"}, "status": "accepted"}], "resourceType": "Appointment"}"#
        ]
    );
    let fhir = lines(&mut client, "select bulk.dump('Patient', fhir => true)");
    assert_eq!(
        fhir[0],
        r#"{"id":"pt-1","meta":{"versionId":"481","lastUpdated":"2021-06-10T08:26:10.707454Z","extension":[{"url":"ex:createdAt","valueInstant":"2021-06-10T08:26:10.707454Z"}]},"name":[{"given":["Alice"]}],"resourceType":"Patient"}"#
    );
    assert_eq!(
        fhir[2],
        r#"{"id":"pt-3","meta":{"versionId":"483","lastUpdated":"2021-06-10T08:26:10.707454Z","extension":[{"url":"ex:createdAt","valueInstant":"2021-06-10T08:26:10.707454Z"}]},"name":[{"given":["Charles"]}],"citizenship":[{"code":{"text":"ru"}}],"resourceType":"Patient"}"#
    );
}

test!("the insert of the 2019 page dumps", page_of_2019);
fn page_of_2019() {
    let database = shared().database();
    let mut client = database.connect();
    client
        .batch_execute(
            "select bulk.create_resource_table('Patient');
             INSERT INTO patient (id,txid, status, resource)
             SELECT g.id, g.id, 'created', '{\"name\": [{\"family\": \"John\"}]}'
             FROM generate_series(1, 1000) AS g (id)",
        )
        .unwrap();
    let row = client
        .query_one(
            "select count(*), count(distinct l::jsonb->>'id'), min(l::jsonb->>'resourceType') from (select bulk.dump('Patient') l) x",
            &[],
        )
        .unwrap();
    assert_eq!((row.get(0), row.get(1), row.get::<_, &str>(2)), (1000i64, 1000i64, "Patient"));
    assert_eq!(
        value(&mut client, "select count(*) from (select bulk.dump('Patient') l) x where l::jsonb#>>'{meta,createdAt}' is not null"),
        "1000"
    );
}

test!("since keeps what was created after it, deleted rows are left out", since);
fn since() {
    let database = shared().database();
    let mut client = database.connect();
    client
        .batch_execute(
            "select bulk.create_resource_table('Patient');
             insert into patient (id, txid, cts, ts, status, resource) values ('old', 1, '2020-01-01Z', '2022-01-01Z', 'updated', '{}'),
             ('edge', 2, '2021-01-01Z', '2021-01-01Z', 'created', '{}'), ('new', 3, '2021-01-01 00:00:00.000001Z', '2021-01-02Z', 'created', '{}'), ('gone', 4, '2021-06-01Z', '2021-01-02Z', 'deleted', '{}')",
        )
        .unwrap();
    let ids = |client: &mut Client, call: &str| value(client, &format!("select string_agg(l::jsonb->>'id', ',') from (select {call} l) x"));
    assert_eq!(ids(&mut client, "bulk.dump('Patient', '2021-01-01Z')"), "new");
    assert_eq!(ids(&mut client, "bulk.dump('Patient', since => '2019-01-01Z', fhir => true)"), "old,edge,new");
    assert_eq!(ids(&mut client, "bulk.dump('Patient', null)"), "old,edge,new");
    assert_eq!(ids(&mut client, "convert_from(bulk.dump_bytes('Patient', '2021-01-01Z'), 'utf8')"), "new");
}

test!("types without a table, unknown types and types of one's own", types);
fn types() {
    let database = shared().database();
    let mut client = database.connect();
    let count = |client: &mut Client, call: &str| value(client, &format!("select count(*) from (select {call}) x"));
    assert_eq!(count(&mut client, "bulk.dump('Patient')"), "0");
    assert_eq!(count(&mut client, "bulk.dump_bytes('Patient')"), "0");
    assert_eq!(failure(&mut client, "select bulk.dump('Nonsense')").code, "42P01");
    client.batch_execute("select bulk.create_resource_table('Nonsense')").unwrap();
    assert_eq!(count(&mut client, "bulk.dump('Nonsense')"), "0");
    for name in ["patient; drop table x", "pg_class", "../x", "", "a b", "Patient\"", "патиент", "1a", "patient_history"] {
        let error = client.query("select bulk.dump($1)", &[&name]).unwrap_err();
        assert_eq!(error.code().unwrap().code(), "22023", "{name}");
        let error = client.query("select bulk.create_resource_table($1)", &[&name]).unwrap_err();
        assert_eq!(error.code().unwrap().code(), "22023", "{name}");
    }
    assert_eq!(failure(&mut client, "select bulk.dump(null)").code, "22004");
    client.batch_execute("create table goal (id int, resource json)").unwrap();
    assert_eq!(failure(&mut client, "select bulk.dump('Goal')").code, "42809");
}

/// A table of many rows.
fn many(client: &mut Client, rows: u32) {
    client
        .batch_execute(&format!(
            "select bulk.create_resource_table('Patient');
             insert into patient (id, txid, status, resource) select 'pt-' || g, g, 'created', jsonb_build_object('name', jsonb_build_array(jsonb_build_object('family', md5(g::text))))
             from generate_series(1, {rows}) g"
        ))
        .unwrap();
}

fn nothing_left(client: &mut Client) {
    assert_eq!(value(client, "select count(*) from pg_cursors where name like '<unnamed%'"), "0");
    let pid: i32 = client.query_one("select pg_backend_pid()", &[]).unwrap().get(0);
    // A thread that has ended is still listed for a moment.
    wait_until("no thread is left", || std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().count() == 1);
}

test!("the first row of a large table comes at once and LIMIT leaves nothing behind", first_row);
fn first_row() {
    let database = shared().database();
    let mut client = database.connect();
    many(&mut client, 300_000);
    // Not by the clock: the pages that are touched before the first row comes.
    let touched = |client: &mut Client, limit: &str| -> i64 {
        let query = format!("explain (analyze, buffers, timing off, format json) select bulk.dump('Patient') {limit}");
        let plan: serde_json::Value = serde_json::from_str(&value_of(client, &query)).unwrap();
        let pages = |name: &str| plan[0]["Plan"][name].as_i64().unwrap();
        pages("Shared Hit Blocks") + pages("Shared Read Blocks")
    };
    client.batch_execute("begin; select bulk.dump('Patient') limit 1").unwrap();
    nothing_left(&mut client);
    let (first, whole) = (touched(&mut client, "limit 1"), touched(&mut client, ""));
    assert!(whole > 3000 && first < whole / 50, "{first} of {whole} pages");
    client.batch_execute("select bulk.dump_bytes('Patient', gzip => true) limit 1; commit").unwrap();
    nothing_left(&mut client);
    assert_eq!(value(&mut client, "select count(*) from (select bulk.dump('Patient')) x"), "300000");
}

/// The one value of a statement that is no query inside another, as text.
fn value_of(client: &mut Client, statement: &str) -> String {
    let messages = client.simple_query(statement).unwrap();
    let rows = messages.iter().filter_map(|message| match message {
        postgres::SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    rows.collect::<Vec<_>>().join("\n")
}

test!("a cursor closed early, a held one and a cancelled query leave nothing behind", early_ends);
fn early_ends() {
    let database = shared().database();
    let mut client = database.connect();
    many(&mut client, 20_000);
    client.batch_execute("begin; declare c cursor for select bulk.dump('Patient')").unwrap();
    assert_eq!(client.query("fetch 1000 c", &[]).unwrap().len(), 1000);
    // Rows that come and go meanwhile are not seen.
    let mut other = database.connect();
    other
        .batch_execute(
            "delete from patient where id > 'pt-5'; insert into patient (id, txid, status, resource) values ('x', 1, 'created', '{}')",
        )
        .unwrap();
    assert_eq!(client.query("fetch 500 c", &[]).unwrap().len(), 500);
    client.batch_execute("close c").unwrap();
    nothing_left(&mut client);
    client.batch_execute("commit; begin; declare h cursor with hold for select bulk.dump('Patient'); commit").unwrap();
    assert!(client.query("fetch all h", &[]).unwrap().len() > 1);
    client.batch_execute("close h").unwrap();
    nothing_left(&mut client);
    // An error in a savepoint, after which the transaction goes on.
    client.batch_execute("begin; savepoint s").unwrap();
    client.batch_execute("select 1/(length(bulk.dump('Patient')) - length(bulk.dump('Patient')))").unwrap_err();
    client.batch_execute("rollback to s").unwrap();
    nothing_left(&mut client);
    client
        .batch_execute("declare c cursor for select bulk.dump('Patient'); fetch 5 c; savepoint t; fetch 300 c; rollback to t; commit")
        .unwrap();
    nothing_left(&mut client);
    client.batch_execute("set statement_timeout = 200").unwrap();
    let error = client.batch_execute("select sum(length(bulk.dump('Patient'))) from generate_series(1, 1000000)").unwrap_err();
    assert!(error.code().is_some());
    let error = client.batch_execute("select count(*) from (select bulk.dump('Patient'), pg_sleep(1)) x").unwrap_err();
    assert_eq!(error.code().unwrap().code(), "57014");
    client.batch_execute("reset statement_timeout").unwrap();
    nothing_left(&mut client);
    // In FROM and in PL/pgSQL, with a commit in the loop.
    assert!(value(&mut client, "select count(*) from bulk.dump('Patient')").parse::<i64>().unwrap() > 1);
    client
        .batch_execute("do $$ declare l text; n int := 0; begin for l in select bulk.dump('Patient') loop n := n + 1; if n % 1000 = 0 then commit; end if; end loop; if n < 2 then raise 'lost'; end if; end $$")
        .unwrap();
    nothing_left(&mut client);
}

test!("chunks are about 64 KiB and gzip is one valid stream", chunks);
fn chunks() {
    let database = shared().database();
    let mut client = database.connect();
    many(&mut client, 20_000);
    let expected: String =
        value(&mut client, "select string_agg(l, E'\\n') || E'\\n' from (select bulk.dump('Patient', fhir => true) l) x");
    for gzip in [false, true] {
        let chunks: Vec<Vec<u8>> = client
            .query("select bulk.dump_bytes('Patient', fhir => true, gzip => $1)", &[&gzip])
            .unwrap()
            .iter()
            .map(|row| row.get(0))
            .collect();
        assert!(chunks.len() > 5);
        for chunk in &chunks[..chunks.len() - 1] {
            assert!((48 << 10..=160 << 10).contains(&chunk.len()), "{}", chunk.len());
        }
        let mut body = chunks.concat();
        if gzip {
            let mut plain = Vec::new();
            MultiGzDecoder::new(body.as_slice()).read_to_end(&mut plain).unwrap();
            body = plain;
        }
        assert_eq!(String::from_utf8(body).unwrap(), expected);
    }
    // Of nothing: an empty body, and a valid gzip of it.
    assert_eq!(client.query("select bulk.dump_bytes('Goal')", &[]).unwrap().len(), 0);
    let empty: Vec<u8> = client.query_one("select bulk.dump_bytes('Goal', gzip => true)", &[]).unwrap().get(0);
    let mut plain = Vec::new();
    MultiGzDecoder::new(empty.as_slice()).read_to_end(&mut plain).unwrap();
    assert_eq!(plain, b"");
}

test!("a dump stays flat in memory", flat);
fn flat() {
    let database = shared().database();
    let mut client = database.connect();
    many(&mut client, 1_000_000);
    let pid: i32 = client.query_one("select pg_backend_pid()", &[]).unwrap().get(0);
    client.batch_execute("begin; declare c no scroll cursor for select length(bulk.dump('Patient'))").unwrap();
    let peak = crate::support::memory_peak::Peak::watch(pid);
    let mut bytes = 0;
    loop {
        let rows = client.query("fetch 10000 c", &[]).unwrap();
        if rows.is_empty() {
            break;
        }
        bytes += rows.iter().map(|row| u64::try_from(row.get::<_, i32>(0)).unwrap()).sum::<u64>();
    }
    // A quarter of what went through, and the same for a table of any size: what is under way between the threads.
    assert!(bytes > 200_000_000 && peak.bytes() < 50 << 20, "{} of {bytes}", peak.bytes());
}

test!("the README's lines for psql write the file that the dump is", one_liners);
/// The one-liners as the README has them, run from its own text.
fn one_liners() {
    let readme = include_str!("../../README.md");
    let lines: Vec<&str> = readme.lines().filter(|line| line.starts_with("psql ") && line.contains("bulk.dump('Patient'")).collect();
    assert!(lines.len() >= 2, "the README shows a plain and a gzipped one-liner");
    let database = shared().database();
    let mut client = database.connect();
    client
        .batch_execute(
            r#"select bulk.create_resource_table('Patient');
            insert into patient (id, txid, status, resource) values ('1', 1, 'created', '{"text": {"div": "a \"quoted\" \\ backslash\n\ttab, comma"}}'), ('2', 2, 'created', '{"x": "\\."}')"#,
        )
        .unwrap();
    let expected: String =
        value(&mut client, "select string_agg(l, E'\\n') || E'\\n' from (select bulk.dump('Patient', fhir => true) l) x");
    for line in lines {
        let directory = run_in_shell(&database, line);
        let written: Vec<_> = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(written.len(), 1, "{line}");
        let bytes = std::fs::read(&written[0]).unwrap();
        let body = if written[0].extension().unwrap() == "gz" {
            let mut plain = Vec::new();
            MultiGzDecoder::new(bytes.as_slice()).read_to_end(&mut plain).unwrap();
            plain
        } else {
            bytes
        };
        assert_eq!(String::from_utf8(body).unwrap(), expected, "{line}");
    }
}

test!("large, compressed and external resources come out whole", large);
fn large() {
    let database = shared().database();
    let mut client = database.connect();
    client.batch_execute("select bulk.create_resource_table('Binary')").unwrap();
    for storage in ["plain", "main", "external", "extended"] {
        client.batch_execute(&format!("truncate \"binary\"; alter table \"binary\" alter resource set storage {storage}")).unwrap();
        let most = if storage == "plain" { 2 } else { 200 };
        client
            .batch_execute(&format!(
                "insert into \"binary\" (id, txid, status, resource)
                 select n::text, n, 'created', jsonb_build_object('data', (select string_agg(md5(random()::text), '') from generate_series(1, n * 30)), 'zeros', repeat('0', n * 100))
                 from generate_series(1, {most}, greatest(1, {most} / 10)) n"
            ))
            .unwrap();
        let wrong = value(
            &mut client,
            "select count(*) from (select bulk.dump('Binary')::jsonb as j) d full join \"binary\" b on b.id = d.j->>'id' where d.j - 'id' - 'meta' - 'resourceType' is distinct from b.resource",
        );
        assert_eq!(wrong, "0", "{storage}");
    }
}

test!("a cursor held after a fetch, and one first fetched in a savepoint that is rolled back, go on", held);
fn held() {
    let database = shared().database();
    let mut client = database.connect();
    many(&mut client, 3000);
    client.batch_execute("begin; declare h cursor with hold for select bulk.dump('Patient')").unwrap();
    assert_eq!(client.query("fetch 10 h", &[]).unwrap().len(), 10);
    client.batch_execute("commit").unwrap();
    assert_eq!(client.query("fetch all h", &[]).unwrap().len(), 2990);
    client.batch_execute("close h; begin; declare c cursor for select bulk.dump('Patient'); savepoint s").unwrap();
    assert_eq!(client.query("fetch 10 c", &[]).unwrap().len(), 10);
    client.batch_execute("rollback to s").unwrap();
    assert_eq!(client.query("fetch all c", &[]).unwrap().len(), 2990);
    client.batch_execute("commit").unwrap();
    nothing_left(&mut client);
    // As of any cursor: what it reads cannot be truncated under it.
    client.batch_execute("begin; declare c cursor for select bulk.dump('Patient')").unwrap();
    assert_eq!(client.query("fetch 1 c", &[]).unwrap().len(), 1);
    assert_eq!(failure(&mut client, "truncate patient").code, "55006");
    client.batch_execute("rollback").unwrap();
}

test!("rows that are no resources are an error, not a crash, and a null status hides none", odd_rows);
fn odd_rows() {
    let database = shared().database();
    let mut client = database.connect();
    client.batch_execute("create table patient (id text, txid bigint, status text, resource jsonb)").unwrap();
    for (row, code) in [
        ("'a', 1, 'created', null", "22004"),
        ("null, 1, 'created', '{}'", "22004"),
        ("'a', null, 'created', '{}'", "22004"),
        ("'a', 1, 'created', '5'", "2203C"),
    ] {
        client.batch_execute(&format!("truncate patient; insert into patient values ({row})")).unwrap();
        for call in ["bulk.dump('Patient')", "bulk.dump_bytes('Patient', gzip => true)"] {
            assert_eq!(failure(&mut client, &format!("select {call}")).code, code, "{row}");
        }
    }
    client.batch_execute("truncate patient; insert into patient values ('a', 1, null, '{}')").unwrap();
    assert_eq!(value(&mut client, "bulk.dump('Patient')"), r#"{"id": "a", "meta": {"versionId": "1"}, "resourceType": "Patient"}"#);
}

test!("a view's large rows stream as a table's do", view);
fn view() {
    let database = shared().database();
    let mut client = database.connect();
    client
        .batch_execute(
            "select bulk.create_resource_table('Binary');
             insert into \"binary\" (id, txid, status, resource) select g::text, g, 'created', jsonb_build_object('data', repeat('x', 5000000)) from generate_series(1, 40) g;
             create schema v; create view v.\"binary\" as select id, txid, cts, ts, resource_type, status, resource || '{\"a\": 1}' as resource from \"binary\";
             set search_path = v, public",
        )
        .unwrap();
    let pid: i32 = client.query_one("select pg_backend_pid()", &[]).unwrap().get(0);
    let peak = crate::support::memory_peak::Peak::watch(pid);
    client.batch_execute("select length(bulk.dump('Binary')) limit 1").unwrap();
    assert_eq!(value(&mut client, "select sum(length(b)) > 200000000 from (select bulk.dump_bytes('Binary') as b) x"), "true");
    assert!(peak.bytes() < 158 << 20, "{}", peak.bytes());
}

test!("a temporary table stands first, and times that no instant can say are left out", temporary);
fn temporary() {
    let database = shared().database();
    let mut client = database.connect();
    client
        .batch_execute(
            "select bulk.create_resource_table('Goal'); create temp table goal (like public.goal);
             insert into goal (id, txid, cts, ts, status, resource) values ('t', 1, '0044-03-15 BC', '-infinity', 'created', '{\"meta\": {\"lastUpdated\": \"old\", \"tag\": []}}')",
        )
        .unwrap();
    assert_eq!(value(&mut client, "bulk.dump('Goal')"), r#"{"id": "t", "meta": {"tag": [], "versionId": "1"}, "resourceType": "Goal"}"#);
}
