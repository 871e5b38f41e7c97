//! Exports that are killed, cancelled, or whose store fails: a manifest never names what is not whole, and what nobody needs is deleted.

use crate::support::cluster::{Cluster, data, server_directory, shared};
use crate::support::exports::{bucket, cancel, count, directory, export, lines, manifest, names, status};
use crate::support::faults::{FAULTS, happen, next, rounds};
use crate::support::proxy::{Proxy, Trouble};
use crate::support::servers::S3Server;
use crate::support::statement::{value, wait_until};
use crate::support::trial::test;
use postgres::Client;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Some types of the real data.
fn fill(client: &mut Client, types: &[&str]) {
    for name in types {
        let path = data().join(format!("{name}.ndjson.gz"));
        client.batch_execute(&format!("select bulk.load('{}', '{name}', fhir => true)", path.display())).unwrap();
    }
}

/// Files below a directory, those that are being written too.
fn files(path: &Path) -> Vec<String> {
    walkdir::WalkDir::new(path)
        .into_iter()
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_file())
        .map(|entry| entry.path().display().to_string())
        .collect()
}

test!("an export that is killed or ended at any moment is whole in the end, as of a new moment", killed, Data);
fn killed() {
    let cluster = Cluster::start();
    let database = cluster.database();
    let mut client = database.connect();
    fill(&mut client, &["Patient", "Observation", "Condition"]);
    let mut state = 5;
    let mut restarted = 0;
    for round in 0..rounds(6) {
        let storage = directory(&mut client);
        let begun = export(&mut client, "system", &json!({"_outputFormat": "application/fhir+ndjson+gzip"}), None);
        let id = begun.id();
        let pids = format!("select pid from bulk.job_file where job_id = '{id}' and pid is not null order by source = 'snapshot' desc");
        std::thread::sleep(Duration::from_millis(next(&mut state) % 700));
        let pids: Vec<String> = client.query(&pids, &[]).unwrap().iter().map(|row| row.get::<_, i32>(0).to_string()).collect();
        let run = "select coalesce(max(transaction_time)::text, '') from bulk.export_run";
        let before = value(&mut client, run);
        if !pids.is_empty() {
            let pid = &pids[next(&mut state) as usize % pids.len()];
            happen(FAULTS[next(&mut state) as usize % FAULTS.len()], pid, &database, &mut client);
        }
        let mut last = value(&mut client, &format!("bulk.wait('{id}', '60 s')"));
        if last == "interrupted" {
            assert_eq!(status(&mut client, &id).status, 202);
            client.batch_execute("select bulk.resume_interrupted()").unwrap();
            last = value(&mut client, &format!("bulk.wait('{id}', '60 s')"));
        }
        assert_eq!(last, "completed", "{round}: {}", value(&mut client, "select string_agg(message, ' ') from bulk.job"));
        restarted += u32::from(value(&mut client, run) != before);
        let manifest = status(&mut client, &id).body;
        assert_eq!(count(&manifest), 615 + 88_674 + 4_546, "{round}");
        // Nothing else is there.
        let mut there = files(storage.path());
        // Of a server that was killed a file may be left that it was about to write.
        there.retain(|name| !name.contains("/.bulk-"));
        assert_eq!(there.len(), manifest["output"].as_array().unwrap().len(), "{round}: {there:?}");
        client.batch_execute("delete from bulk.job").unwrap();
    }
    println!("{restarted} rounds began anew");
}

test!("an export whose store fails is an error, or does better when it is tried again", stores, Data);
fn stores() {
    let database = shared().database();
    let mut client = database.connect();
    let server = S3Server::start(&["bucket"]).expect("make test provides it");
    let proxy = Proxy::start(server.server.port);
    bucket(&mut client, &proxy.host());
    fill(&mut client, &["Patient", "Condition", "Encounter"]);
    let gzip = json!({"_outputFormat": "application/fhir+ndjson+gzip"});
    // Revoked, full, gone.
    for (trouble, behind, said) in [
        (Trouble::Deny(403, "AccessDenied"), 0, "AccessDenied"),
        (Trouble::Deny(403, "AccessDenied"), 1, "AccessDenied"),
        (Trouble::Deny(403, "QuotaExceeded"), 1, "QuotaExceeded"),
        (Trouble::Cut(1000), 1, ""),
    ] {
        proxy.trouble_writing(Some(trouble), behind);
        let begun = export(&mut client, "system", &gzip, None);
        assert_eq!(value(&mut client, &format!("bulk.wait('{}', '100 s')", begun.id())), "error", "{trouble:?}");
        let failed = status(&mut client, &begun.id());
        let text = failed.body["issue"][0]["diagnostics"].as_str().unwrap();
        assert!(failed.status == 500 && text.contains(said) && !text.contains("SECRET"), "{failed:?}");
        proxy.trouble_writing(None, 0);
        wait_until("its files are deleted", || {
            value(&mut client, "select count(*) from bulk.job where kind = 'cleanup' and state <> 'done'") == "0"
        });
        assert_eq!(
            (files(&server.bucket("bucket")), value(&mut client, "select count(*) from bulk.export_run")),
            (Vec::<String>::new(), "0".to_owned())
        );
        client.batch_execute("delete from bulk.job").unwrap();
    }
    // For a moment.
    proxy.trouble_writing(Some(Trouble::Refuse), 0);
    let begun = export(&mut client, "system", &gzip, None);
    let refused = proxy.refused();
    wait_until("it is refused, and again", || proxy.refused() > refused + 1);
    proxy.trouble_writing(None, 0);
    let manifest = manifest(&mut client, &begun);
    let counted: u64 = manifest["output"].as_array().unwrap().iter().map(|file| file["count"].as_u64().unwrap()).sum();
    assert_eq!(counted, 615 + 4_546 + 18_098);
    assert_eq!(files(&server.bucket("bucket")).len(), manifest["output"].as_array().unwrap().len());
}

test!("a cancelled export leaves nothing", cancelled, Data);
fn cancelled() {
    let database = shared().database();
    let mut client = database.connect();
    fill(&mut client, &["Patient", "Observation"]);
    let storage = directory(&mut client);
    for round in 0..6_u64 {
        let begun = export(&mut client, "system", &json!({"_outputFormat": "application/fhir+ndjson+gzip"}), None);
        std::thread::sleep(Duration::from_millis(60 * round));
        match round % 2 {
            0 => assert_eq!(cancel(&mut client, &begun.id()).status, 202),
            _ => drop(value(&mut client, &format!("bulk.cancel('{}')", begun.id()))),
        }
        let state = value(&mut client, &format!("bulk.wait('{}', '30 s')", begun.id()));
        if state == "completed" {
            assert_eq!(cancel(&mut client, &begun.id()).status, 202);
        }
        assert_eq!(status(&mut client, &begun.id()).status, 404);
        wait_until("nothing is left", || {
            files(storage.path()).is_empty()
                && value(&mut client, "select count(*) from bulk.job where state in ('waiting', 'in-progress')") == "0"
        });
        assert_eq!(value(&mut client, "select count(*) from bulk.export_run"), "0");
        // There is room for the next.
    }
}

test!("what cannot be deleted is listed", left);
fn left() {
    let database = shared().database();
    let mut client = database.connect();
    let storage = server_directory();
    client
        .batch_execute(&format!("set bulk.storage_backend = 'file'; set bulk.storage_file_directory = '{}'", storage.path().display()))
        .unwrap();
    client.batch_execute("select bulk.create_resource_table('Patient'); insert into patient (id, txid, status, resource) values ('a', 1, 'created', '{}')").unwrap();
    let begun = export(&mut client, "system", &json!({}), None);
    let manifest = manifest(&mut client, &begun);
    let url = manifest["output"][0]["url"].as_str().unwrap().strip_prefix("file://").unwrap().to_owned();
    // A directory in the file's place can be deleted by nobody who deletes files.
    fs::remove_file(&url).unwrap();
    fs::create_dir(&url).unwrap();
    assert_eq!(cancel(&mut client, &begun.id()).status, 202);
    wait_until("it is tried", || value(&mut client, "select count(*) from bulk.job where kind = 'cleanup' and state = 'done'") == "1");
    let listed = value(&mut client, "select concat_ws(' ', kind, file, message is not null) from bulk.export_file");
    assert!(listed.starts_with("left 20") && listed.ends_with("/Patient-1.ndjson t"), "{listed}");
}

test!("exports are done with one worker's place, and one after another", places);
fn places() {
    let cluster = Cluster::start_with("bulk.max_workers = 1\nmax_prepared_transactions = 2\nshared_preload_libraries = 'bulk'\n");
    let database = cluster.database();
    let mut client = database.connect();
    let storage = directory(&mut client);
    client.batch_execute("select bulk.create_resource_table('Patient'); insert into patient (id, txid, status, resource) select 'p' || n, n, 'created', '{}' from generate_series(1, 1000) n").unwrap();
    for _ in 0..3 {
        let begun = export(&mut client, "system", &json!({}), None);
        assert_eq!(names(&lines(&manifest(&mut client, &begun), "output")).len(), 1000);
    }
    // A prepared transaction that has written may have begun at any time: it is waited for.
    client
        .batch_execute(
            "begin; insert into patient (id, txid, status, resource) values ('late', 1, 'created', '{}'); prepare transaction 'x'",
        )
        .unwrap();
    let begun = export(&mut client, "system", &json!({}), None);
    let waits = "select count(*) from pg_stat_activity where backend_type = 'bulk worker' and datname = current_database() and wait_event = 'Extension'";
    let mut waited = 0;
    wait_until("it waits for the prepared transaction", || {
        waited += usize::from(value(&mut client, waits) == "1");
        waited == 20
    });
    assert_eq!(status(&mut client, &begun.id()).status, 202);
    client.batch_execute("commit prepared 'x'").unwrap();
    assert_eq!(count(&manifest(&mut client, &begun)), 1001);
    // After a restart the launcher goes on with it.
    let server = S3Server::start(&["bucket"]).expect("make test provides it");
    let proxy = Proxy::start(server.server.port);
    bucket(&mut client, &proxy.host());
    proxy.trouble_writing(Some(Trouble::Refuse), 0);
    let begun = export(&mut client, "system", &json!({"_type": "Patient"}), None);
    let id = begun.id();
    wait_until("it is at work", || value(&mut client, &format!("select state from bulk.job where id = '{id}'")) == "in-progress");
    drop(client);
    cluster.stop("immediate");
    proxy.trouble_writing(None, 0);
    cluster.boot();
    let mut client = database.connect();
    // Until the launcher has come to this database the job is interrupted, which ends `bulk.wait`.
    let state = format!("select state from bulk.job where id = '{id}'");
    wait_until("the launcher goes on with it", || value(&mut client, &state) != "interrupted");
    assert_eq!(value(&mut client, &format!("bulk.wait('{id}', '60 s')")), "completed");
    let whole: Value = status(&mut client, &id).body;
    assert_eq!((&whole["output"][0]["count"], whole["output"].as_array().unwrap().len()), (&json!(1001), 1));
    assert_eq!((files(storage.path()).len(), files(&server.bucket("bucket")).len()), (4, 1));
}

test!("whoever alters a table waits for an export, which does not wait for them", altered);
fn altered() {
    let database = shared().database();
    let mut client = database.connect();
    let server = S3Server::start(&["bucket"]).expect("make test provides it");
    let proxy = Proxy::start(server.server.port);
    bucket(&mut client, &proxy.host());
    client.batch_execute("select bulk.create_resource_table('Patient'); insert into patient (id, txid, status, resource) values ('a', 1, 'created', '{}')").unwrap();
    proxy.trouble_writing(Some(Trouble::Refuse), 0);
    let begun = export(&mut client, "system", &json!({}), None);
    let at_work =
        format!("select count(*) from bulk.job_file where job_id = '{}' and source <> 'snapshot' and state = 'in-progress'", begun.id());
    wait_until("it is at work", || value(&mut client, &at_work) == "1");
    let mut other = database.connect();
    let altering = std::thread::spawn(move || other.batch_execute("alter table patient add column more int").unwrap());
    wait_until("the table is waited for", || {
        value(&mut client, "select count(*) from pg_locks where not granted and relation = 'patient'::regclass") != "0"
    });
    assert_eq!(value(&mut client, &format!("bulk.wait('{}', '60 s')", begun.id())), "error");
    let message = value(&mut client, &format!("select message from bulk.job where id = '{}'", begun.id()));
    assert!(message == "table \"patient\" is about to be altered" || message.contains("503"), "{message}");
    altering.join().unwrap();
    proxy.trouble_writing(None, 0);
    let begun = export(&mut client, "system", &json!({}), None);
    assert_eq!(manifest(&mut client, &begun)["output"][0]["count"], 1);
}
