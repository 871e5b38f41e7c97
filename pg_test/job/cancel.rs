//! Jobs that are cancelled, or not.

use crate::support::cluster::{Cluster, server_directory, shared};
use crate::support::exports::directory;
use crate::support::jobs::{hold, is_gone, outcome, patients, stuck};
use crate::support::source::File;
use crate::support::statement::{value, wait_until};
use crate::support::trial::{SERVER, parts, test};
use serde_json::json;

parts!(SERVER);

test!("a cancel that is rolled back cancels nothing", not_cancelled);
fn not_cancelled() {
    let database = shared().database();
    let mut client = database.connect();
    patients(&mut client, 1000);
    let mut holder = hold(&database);
    let id = value(&mut client, "bulk.validate('Patient')");
    stuck(&mut client, &id);
    client
        .batch_execute(&format!("begin; savepoint s; select bulk.cancel('{id}'); rollback to s; savepoint t; release t; commit"))
        .unwrap();
    client
        .batch_execute(&format!(
            "do $$ begin perform bulk.cancel('{id}'); raise exception 'no'; exception when raise_exception then null; end $$"
        ))
        .unwrap();
    client.batch_execute(&format!("begin; select bulk.cancel('{id}'); rollback")).unwrap();
    holder.batch_execute("rollback").unwrap();
    assert_eq!(value(&mut client, &format!("bulk.wait('{id}', '20 s')")), "done");
    // Jobs of a subtransaction that is taken back are none.
    client.batch_execute("begin; savepoint s; select bulk.validate('Patient'); rollback to s; savepoint t; select bulk.validate('Patient'); release t; commit").unwrap();
    let states = "select string_agg(distinct state, ' ') from bulk.job";
    wait_until("both are done", || value(&mut client, states) == "done");
    assert_eq!(value(&mut client, "select count(*) from bulk.job"), "2");
}

test!("a cancelled job ends at once, by whoever may", cancelled);
fn cancelled() {
    let database = shared().database();
    let mut client = database.connect();
    patients(&mut client, 1000);
    let mut holder = hold(&database);
    let id = value(&mut client, "bulk.validate('Patient')");
    let pid = stuck(&mut client, &id);
    let shown = format!("select concat_ws(' ', usename, backend_type, state, query) from pg_stat_activity where pid = {pid}");
    assert_eq!(value(&mut client, &shown), format!("postgres bulk worker active bulk.validate of public.patient, job {id}"));
    assert_eq!(
        value(&mut client, &format!("select concat_ws(' ', phase, rows, kind) from bulk.progress where job_id = '{id}'")),
        "in-progress 0 validate"
    );
    assert_eq!(value(&mut client, &format!("bulk.wait('{id}', '50 ms')")), "in-progress");
    assert_eq!(value(&mut client, &format!("bulk.cancel('{id}')")), "true");
    assert_eq!(value(&mut client, &format!("bulk.wait('{id}')")), "cancelled");
    is_gone(pid);
    assert_eq!(outcome(&mut client, &id), "cancelled 0 0");
    assert_eq!(value(&mut client, &format!("select state from bulk.job_file where job_id = '{id}'")), "cancelled");
    holder.batch_execute("rollback").unwrap();
    // What waits, too, and what the same transaction asked for.
    client.batch_execute("begin").unwrap();
    let id = value(&mut client, "bulk.validate('Patient')");
    assert_eq!(value(&mut client, &format!("bulk.cancel('{id}')")), "true");
    assert_eq!(value(&mut client, &format!("bulk.wait('{id}')")), "cancelled");
    client.batch_execute("commit").unwrap();
    assert_eq!(outcome(&mut client, &id), "cancelled 0 0");
    // PostgreSQL's own cancel is an error of the part.
    let holder = hold(&database);
    let id = value(&mut client, "bulk.validate('Patient')");
    let pid = stuck(&mut client, &id);
    client.batch_execute(&format!("select pg_cancel_backend({pid})")).unwrap();
    assert_eq!(value(&mut client, &format!("bulk.wait('{id}')")), "error");
    assert_eq!(value(&mut client, &format!("select message from bulk.job where id = '{id}'")), "canceling statement due to user request");
    drop(holder);
}

test!("a cancel that arrives when its worker is at the next job ends no task of that job", late_cancel);
fn late_cancel() {
    let cluster = Cluster::start_with("bulk.max_workers = 1\n");
    let database = cluster.database();
    let mut client = database.connect();
    patients(&mut client, 20);
    client.batch_execute("select bulk.create_resource_table('Basic'); insert into basic (id, txid, resource, status) values ('x', 1, '{\"name\": 1}', 'created')").unwrap();
    let lines = File::new(b"{\"id\": \"p-1\"}\n{\"id\": \"p-2\"}\n");
    let files = server_directory();
    std::fs::write(files.path().join("Patient-1.ndjson"), "{\"id\": \"b-1\"}\n").unwrap();
    let storage = directory(&mut client);
    let import =
        |id: &str, mode: &str| json!({"id": id, "mode": mode, "inputs": [{"resourceType": "Patient", "url": lines.url()}]}).to_string();
    let kinds = [
        ("an import", format!("bulk.import('{}')", import("bulk", "bulk")), "done", "error"),
        ("an import in one transaction", format!("bulk.import('{}')", import("one", "transaction")), "done", "error"),
        ("a bucket", format!("bulk.load_from_bucket('{{\"bucket\": \"{}\"}}')", files.path().display()), "completed", "completed"),
        ("a validation", "bulk.validate('Patient')".to_owned(), "done", "error"),
        ("an export", "bulk.export('system', '{\"_type\": \"Patient\"}')".to_owned(), "completed", "error"),
    ];
    for (kind, call, expected, failed) in &kinds {
        for cancels in [1, 2] {
            client.batch_execute("delete from bulk.job where id in ('bulk', 'one'); delete from bulk.loader_file").unwrap();
            // The worker goes from one job to the next, which waits for a table.
            let (mut first, mut second) = (hold(&database), database.connect());
            let before = value(&mut client, "bulk.validate('Basic')");
            let pid = stuck(&mut client, &before);
            client.batch_execute(&format!("select {call}")).unwrap();
            let id = value(&mut client, "select id from bulk.job order by created desc limit 1");
            second.batch_execute("begin; lock table patient in access exclusive mode").unwrap();
            first.batch_execute("rollback").unwrap();
            let waits = format!(
                "select coalesce(max(xact_start)::text, '') from pg_stat_activity where pid = {pid} and wait_event_type = 'Lock' \
                 and exists (select from bulk.job where id = '{id}' and state = 'in-progress')"
            );
            let mut began = String::new();
            for _ in 0..cancels {
                let mut now = String::new();
                wait_until(kind, || {
                    now = value(&mut client, &waits);
                    !now.is_empty() && now != began
                });
                began = now;
                client.batch_execute(&format!("select pg_cancel_backend({pid})")).unwrap();
            }
            if cancels == 2 {
                wait_until(kind, || value(&mut client, &format!("select finished is not null from bulk.job where id = '{id}'")) == "true");
            }
            second.batch_execute("rollback").unwrap();
            let state = value(&mut client, &format!("bulk.wait('{id}', '60 s')"));
            assert_eq!(&state, if cancels == 1 { expected } else { failed }, "{kind}, cancels: {cancels}");
            if *kind == "a bucket" {
                let file = value(&mut client, "select concat_ws(' ', status, error->>'code') from bulk.loader_file");
                assert_eq!(file, if cancels == 1 { "done" } else { "error 57014" });
            }
            assert_eq!(value(&mut client, &format!("bulk.wait('{before}', '60 s')")), "done");
        }
    }
    drop(storage);
}
