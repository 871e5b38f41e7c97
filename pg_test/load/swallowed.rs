//! Lines that a trigger or a rule keeps from being stored count as skipped, on every way into a table.

use crate::support::buckets;
use crate::support::cluster::{Database, server_directory, shared};
use crate::support::imports::{call, patient_input, wait};
use crate::support::source::File;
use crate::support::statement::value;
use crate::support::trial::{WRITING, parts, test};
use postgres::Client;
use serde_json::json;
use std::fs;

parts!(WRITING);

/// Forty ids, every tenth of which is swallowed; where lines may repeat, two come twice: one of those, and another.
fn lines(repeats: bool) -> Vec<u8> {
    let more: &[u32] = if repeats { &[0, 1] } else { &[] };
    (0..40)
        .chain(more.iter().copied())
        .map(|n| format!("{{\"id\":\"{n}\",\"meta\":{{\"lastUpdated\":\"2024-01-01T00:00:00Z\"}}}}\n"))
        .collect::<String>()
        .into_bytes()
}

/// A table with a trigger of its own, or of its partitions, that swallows rows.
fn table(database: &Database, kind: &str) -> Client {
    let mut client = database.connect();
    client
        .batch_execute(
            "create or replace function swallow() returns trigger language plpgsql as \
             'begin if new.id like ''%0'' then return null; end if; return new; end'",
        )
        .unwrap();
    let made = match kind {
        "own" => {
            "select bulk.create_resource_table('Patient'); create trigger swallow before insert or update on patient for each row execute function swallow()"
        }
        _ => {
            "select bulk.create_resource_table('Patient'); alter table patient rename to plain;
            create table patient (like plain including defaults, primary key (id)) partition by hash (id);
            create table patient_0 partition of patient for values with (modulus 2, remainder 0);
            create table patient_1 partition of patient for values with (modulus 2, remainder 1);
            create trigger swallow before insert or update on patient_0 for each row execute function swallow();
            create trigger swallow before insert or update on patient_1 for each row execute function swallow()"
        }
    };
    client.batch_execute(made).unwrap();
    client
}

/// What the account of a job says, and the rows: read, stored, skipped, rejected.
fn account(client: &mut Client, condition: &str) -> String {
    let said = value(client, &format!("select concat_ws(' ', read, stored, skipped, rejected) from bulk.job where {condition}"));
    let rows = value(client, "select count(*) from patient");
    client.batch_execute("truncate patient, patient_history; delete from bulk.loader_file").unwrap();
    format!("{said}: {rows} rows")
}

test!("what a trigger keeps from being stored is skipped, on every way into a table", triggers);
fn triggers() {
    for kind in ["own", "partitions"] {
        let database = shared().database();
        let mut client = table(&database, kind);
        let (once, twice) = (File::new(&lines(false)), File::new(&lines(true)));
        for (options, file, expected) in [
            ("{}", &twice, "42 37 5 0: 36 rows"),
            (r#"{"method": "insert"}"#, &twice, "42 37 5 0: 36 rows"),
            (r#"{"update": true}"#, &twice, "42 37 5 0: 36 rows"),
            (r#"{"max-errors": 3}"#, &twice, "42 37 5 0: 36 rows"),
            (r#"{"keep-meta": true}"#, &twice, "42 37 5 0: 36 rows"),
            (r#"{"on-conflict": "skip"}"#, &twice, "42 36 6 0: 36 rows"),
            (r#"{"on-conflict": "newer"}"#, &twice, "42 36 6 0: 36 rows"),
            (r#"{"on-conflict": "error"}"#, &once, "40 36 4 0: 36 rows"),
        ] {
            let answer = value(&mut client, &format!("bulk.load('{}', 'Patient', options => '{options}')", file.url()));
            let stored: u32 = expected.split(' ').nth(1).unwrap().parse().unwrap();
            assert_eq!(answer, json!({"total": stored}).to_string().replace(':', ": "), "{kind} {options}");
            assert_eq!(account(&mut client, "id = bulk.last_load_id()"), expected, "{kind} {options}");
        }
        // Over rows that are there: an update is swallowed too.
        client.batch_execute("alter table patient disable trigger all").unwrap();
        if kind == "own" {
            client.batch_execute(&format!("select bulk.load('{}', 'Patient')", once.url())).unwrap();
            client.batch_execute("alter table patient enable trigger all").unwrap();
            client.batch_execute(&format!("select bulk.load('{}', 'Patient')", twice.url())).unwrap();
            assert_eq!(account(&mut client, "id = bulk.last_load_id()"), "42 37 5 0: 40 rows");
        }
        client.batch_execute("alter table patient enable trigger all").unwrap();
        for mode in ["bulk", "transaction"] {
            let id = format!("{kind} {mode}");
            assert_eq!(call(&mut client, &json!({"id": id, "mode": mode, "inputs": patient_input(&twice.url())})).0, 200);
            assert_eq!(wait(&mut client, &id), "done");
            assert_eq!(account(&mut client, &format!("id = '{id}'")), "42 37 5 0: 36 rows", "{id}");
        }
        let directory = server_directory();
        fs::write(directory.path().join("Patient.1.ndjson"), lines(false)).unwrap();
        for upsert in [false, true] {
            let answer = buckets::call(&mut client, &json!({"bucket": directory.path().display().to_string(), "upsert?": upsert}));
            buckets::done(&mut client, &answer);
            assert_eq!(value(&mut client, "select status || ' ' || loaded from bulk.loader_file"), "done 36", "{kind} {upsert}");
            assert_eq!(
                account(&mut client, &format!("id = '{}'", answer["id"].as_str().unwrap())),
                "40 36 4 0: 36 rows",
                "{kind} {upsert}"
            );
        }
    }
}
