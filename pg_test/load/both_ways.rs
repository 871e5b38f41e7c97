//! The fast way of writing rows: taken only where it makes no difference, and then it makes none.

use crate::support::cluster::{Database, shared};
use crate::support::source::File;
use crate::support::statement::{failure, value, wait_until};
use crate::support::trial::{SERVER, WRITING, parts, test};
use postgres::Client;
use std::fmt::Write;

parts!(SERVER, WRITING);

/// Lines whose ids repeat near and far.
fn repeating(seed: u64, count: u64, ids: u64) -> String {
    let mut state = seed;
    let mut lines = String::new();
    for line in 0..count {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let id = if (state >> 60) == 0 { line.saturating_sub((state >> 40) % 3) } else { (state >> 33) % ids };
        writeln!(lines, "{{\"id\":\"{id}\",\"line\":{line},\"text\":\"{}\"}}", "x".repeat((state >> 50) as usize % 300)).unwrap();
    }
    lines
}

test!("both ways of writing leave the same rows, whatever repeats and whatever was there", same_rows);
fn same_rows() {
    let database = shared().database();
    let mut client = database.connect();
    client
        .batch_execute(
            "create schema fast; create schema general; set search_path = fast; select bulk.create_resource_table('Patient'); set search_path = general, fast;
             create table patient (like fast.patient including all); create table patient_history (like fast.patient_history including all)",
        )
        .unwrap();
    // New; again over what is there; with a history in which some ids are deleted.
    for (round, history) in [(1, false), (2, false), (3, true)] {
        let file = File::new(repeating(round, 30_000, 20_000).as_bytes());
        for schema in ["fast", "general"] {
            client.batch_execute(&format!("set search_path = {schema}, fast; set bulk.fast_path = {}", schema == "fast")).unwrap();
            if history {
                client
                    .batch_execute(
                        "delete from patient where right(id, 1) = '7';
                         insert into patient_history (id, txid, status, resource) select g::text, g, 'deleted', '{}' from generate_series(1, 25000, 3) g",
                    )
                    .unwrap();
            }
            assert_eq!(value(&mut client, &format!("bulk.load('{}', 'Patient')", file.url())), r#"{"total": 30000}"#);
        }
        let row = client
            .query_one(
                "select count(*), count(*) filter (where f.status <> g.status or f.resource <> g.resource or f.resource_type <> g.resource_type or f.id is null or g.id is null)
                 from fast.patient f full join general.patient g using (id)",
                &[],
            )
            .unwrap();
        assert!(row.get::<_, i64>(0) > 10_000);
        assert_eq!(row.get::<_, i64>(1), 0, "round {round}");
        assert_eq!(value(&mut client, "select count(*) = count(distinct txid) from fast.patient"), "true");
        let statuses = value(&mut client, "select string_agg(distinct status::text, ',') from fast.patient");
        assert_eq!(statuses, if history { "created,recreated,updated" } else { "created,updated" }, "round {round}");
    }
}

/// Lines of these sizes, of noise and of text; another seed gives other content for the same ids.
fn sized(sizes: &[usize], seed: u64) -> String {
    let mut lines = String::new();
    let mut state = seed;
    for (kind, random) in [("noise", true), ("text", false)] {
        for &size in sizes {
            let mut data = String::with_capacity(size);
            while data.len() < size {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                if random {
                    data.push(char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[(state >> 58) as usize]));
                } else {
                    write!(data, "word{} ", (state >> 56) % 97).unwrap();
                }
            }
            writeln!(lines, "{{\"id\":\"{kind}-{size}\",\"data\":\"{data}\"}}").unwrap();
        }
    }
    lines
}

const SIZES: [usize; 15] = [100, 1000, 1900, 1960, 1970, 1980, 1990, 2000, 2010, 2100, 3000, 10_000, 100_000, 1_000_000, 5_000_000];

const BY_INSERT: &str = "insert into inserted (id, txid, cts, ts, resource_type, status, resource)
    select id, txid, cts, ts, resource_type, status, resource::text::jsonb from \"binary\" order by id";

test!("large resources are stored as INSERT stores them, for every storage and compression", large);
fn large() {
    let database = shared().database();
    let mut client = database.connect();
    let files = [7, 8].map(|seed| File::new(sized(&SIZES, seed).as_bytes()));
    // A row of storage plain must fit into a page.
    let small = [7, 8].map(|seed| File::new(sized(&SIZES[..11], seed).as_bytes()));
    client.batch_execute("select bulk.create_resource_table('Binary'); create table inserted (like \"binary\" including all)").unwrap();
    let lz4 = client.batch_execute("set default_toast_compression = lz4").is_ok();
    client.batch_execute("reset default_toast_compression").unwrap();
    let methods = if lz4 { ["pglz", "lz4"].as_slice() } else { &["pglz"] };
    for method in methods {
        for (storage, target) in
            [("main", 2032), ("external", 2032), ("plain", 2032), ("extended", 2032), ("extended", 6000), ("extended", 200)]
        {
            for table in ["\"binary\"", "inserted"] {
                client
                    .batch_execute(&format!("truncate {table}; alter table {table} alter resource set storage {storage}, alter resource set compression {method}; alter table {table} set (toast_tuple_target = {target})"))
                    .unwrap();
            }
            // New rows, then the same ids with other content.
            for file in if storage == "plain" { &small } else { &files } {
                client.batch_execute(&format!("select bulk.load('{}', 'Binary')", file.url())).unwrap();
                client.batch_execute("truncate inserted").unwrap();
                client.batch_execute(BY_INSERT).unwrap();
                // lz4 may find other matches than the C library does: what counts is that it compressed. Of plain values INSERT … SELECT makes
                // headers of one byte, COPY and the straight way of four.
                let size =
                    if *method == "lz4" || storage == "plain" { "pg_column_compression(i.resource)" } else { "pg_column_size(i.resource)" };
                let wrong = format!(
                    "select coalesce(string_agg(id, ',' order by id), 'none') from \"binary\" b full join inserted i using (id) where not record_image_eq(row(b.resource), row(i.resource))
                     or pg_column_compression(b.resource) is distinct from pg_column_compression(i.resource) or {} is distinct from {size}",
                    size.replace("i.", "b.")
                );
                assert_eq!(value(&mut client, &wrong), "none", "{method} {storage} {target}");
                assert_eq!(value(&mut client, "select count(*) from \"binary\""), if storage == "plain" { "22" } else { "30" });
                if *method == "pglz" && storage != "plain" {
                    same_bytes(&mut client, &format!("{storage} {target}"));
                }
            }
        }
    }
}

/// What lies on the disk, compressed, is to the byte what INSERT puts there: in the rows, by pageinspect, and out of line.
fn same_bytes(client: &mut Client, what: &str) {
    let out_of_line = |client: &mut Client, table: &str| {
        let toast = value(client, &format!("select reltoastrelid::regclass from pg_class where oid = '{table}'::regclass"));
        let whole = format!("select md5(string_agg(chunk_data, ''::bytea order by chunk_seq)) as sum from {toast} group by chunk_id");
        value(client, &format!("select string_agg(sum, ',' order by sum) from ({whole}) w"))
    };
    assert_eq!(out_of_line(client, "\"binary\""), out_of_line(client, "inserted"), "{what}");
    if client.batch_execute("create extension if not exists pageinspect").is_err() {
        return;
    }
    // Nothing but what is there now.
    client.batch_execute("vacuum \"binary\"").unwrap();
    let in_line = |client: &mut Client, table: &str| {
        let pages = format!("generate_series(0, pg_relation_size('{table}') / 8192 - 1) n");
        // 18 bytes are a pointer out of line.
        let rows = format!(
            "select t_attrs[1] as id, t_attrs[7] as resource from {pages}, heap_page_item_attrs(get_raw_page('{table}', n::int), '{table}') where t_attrs is not null"
        );
        value(
            client,
            &format!(
                "select count(*) || ' ' || md5(string_agg(id || resource, '' order by id)) from ({rows}) r where octet_length(resource) <> 18"
            ),
        )
    };
    assert_eq!(in_line(client, "\"binary\""), in_line(client, "inserted"), "{what}");
}

/// The messages of a load at DEBUG1.
fn messages(database: &Database, url: &str) -> String {
    let output = database
        .psql()
        .args(["-c", "set client_min_messages = debug1", "-c", &format!("select bulk.load('{url}', 'Patient')")])
        .output()
        .unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

test!("a table that is not a plain resource table takes the general way and a message says why", reasons);
fn reasons() {
    let database = shared().database();
    let mut client = database.connect();
    let file = File::new(b"{\"id\":\"1\"}\n");
    client.batch_execute("select bulk.create_resource_table('Patient'); set bulk.fast_path = on").unwrap();
    assert!(!messages(&database, &file.url()).contains("general way"));
    if value(&mut client, "select reset_val from pg_settings where name = 'bulk.fast_path'") == "off" {
        return;
    }
    let cases = [
        ("alter table patient add extra int", "alter table patient drop extra", "extra"),
        ("select 1", "select 1", "dropped"),
        (
            "create table fresh (like patient including all); drop table patient; alter table fresh rename to patient;
             create function f() returns trigger language plpgsql as 'begin return new; end'; create trigger t before insert on patient for each row execute function f()",
            "drop trigger t on patient",
            "triggers",
        ),
        ("create rule r as on insert to patient do also select 1", "drop rule r on patient", "rules"),
        ("alter table patient alter txid add generated by default as identity", "alter table patient alter txid drop identity", "identity"),
        ("alter table patient alter id type varchar", "alter table patient alter id type text", "id"),
        ("alter table patient drop constraint fresh_pkey, add unique (id, txid)", "alter table patient add primary key (id)", "no unique key"),
    ];
    for (make, unmake, reason) in cases {
        client.batch_execute(make).unwrap();
        // A rule and a missing key stand against ON CONFLICT too: there the load is PostgreSQL's own error.
        let refused = [("rules", "0A000"), ("no unique key", "42P10")];
        if let Some((_, code)) = refused.iter().find(|(what, _)| *what == reason) {
            assert_eq!(&failure(&mut client, &format!("select bulk.load('{}', 'Patient')", file.url())).code, code);
        } else {
            let said = messages(&database, &file.url());
            assert!(said.contains("general way") && said.contains(reason), "{reason}: {said}");
        }
        client.batch_execute(unmake).unwrap();
    }
    assert!(!messages(&database, &file.url()).contains("general way"));
}

test!("constraints hold and name themselves, also against a session that was faster", constraints);
fn constraints() {
    let database = shared().database();
    let mut client = database.connect();
    client
        .batch_execute("select bulk.create_resource_table('Patient'); alter table patient add constraint sober check (not resource ? 'drunk'); create unique index by_number on patient ((resource->>'number'))")
        .unwrap();
    let load = |content: &str| (File::new(content.as_bytes()), "Patient");
    let (file, _) = load("{\"id\":\"1\"}\n{\"id\":\"2\",\"drunk\":true}\n");
    let error = failure(&mut client, &format!("select bulk.load('{}', 'Patient')", file.url()));
    assert_eq!((error.code.as_str(), error.constraint.as_str()), ("23514", "sober"), "{error:?}");
    let (file, _) = load("{\"id\":\"1\",\"number\":5}\n{\"id\":\"2\",\"number\":5}\n");
    let error = failure(&mut client, &format!("select bulk.load('{}', 'Patient')", file.url()));
    assert_eq!((error.code.as_str(), error.constraint.as_str()), ("23505", "by_number"), "{error:?}");
    assert_eq!(value(&mut client, "select count(*) from patient"), "0");
    // Another session holds the same id, not yet committed: this one waits, and then is told.
    let mut other = database.connect();
    other.batch_execute("begin; insert into patient (id, txid, status, resource) values ('1', 1, 'created', '{}')").unwrap();
    let (file, _) = load("{\"id\":\"1\"}\n");
    let url = file.url();
    let pid: i32 = client.query_one("select pg_backend_pid()", &[]).unwrap().get(0);
    let fast = value(&mut client, "current_setting('bulk.fast_path')") == "on";
    let waiting = std::thread::spawn(move || client.batch_execute(&format!("select bulk.load('{url}', 'Patient')")));
    let mut watch = database.connect();
    wait_until("the load waits for the other session", || {
        value(&mut watch, &format!("select wait_event from pg_stat_activity where pid = {pid}")) == "transactionid"
    });
    other.batch_execute("commit").unwrap();
    let result = waiting.join().unwrap();
    if fast {
        let error = result.unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!((error.code().code(), error.constraint()), ("23505", Some("patient_pkey")));
    } else {
        result.unwrap();
    }
}
