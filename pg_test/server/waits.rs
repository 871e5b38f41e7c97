//! How long one role's locks and open transactions hold others up, and who is named for it.

use crate::support::buckets::{call, lines};
use crate::support::cluster::{Cluster, Database, server_directory, shared};
use crate::support::exports::{directory, export};
use crate::support::imports::{self, PLAIN, patient_input, wait};
use crate::support::source::{File, Manner, Slow};
use crate::support::statement::{Failure, value, wait_until};
use crate::support::trial::{SERVER, parts, test};
use serde_json::json;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

parts!(SERVER);

/// Runs a statement in a session of its own: its failure, if it fails within a minute.
fn apart(database: &Database, statement: &str) -> JoinHandle<Option<Failure>> {
    let (mut client, statement) = (database.connect(), format!("set statement_timeout = '60s'; {statement}"));
    std::thread::spawn(move || client.batch_execute(&statement).err().map(|error| Failure::of(&error)))
}

test!("whoever locks the extension's tables holds nobody up for longer than five seconds, and is named", locked_tables);
fn locked_tables() {
    let cluster = Cluster::start_with("bulk.max_workers = 2\n");
    let database = cluster.database();
    let mut client = database.connect();
    client
        .batch_execute("select bulk.create_resource_table('Patient'); create role locker login in role pg_write_all_data, pg_read_all_data")
        .unwrap();
    let (file, files, storage) = (File::new(&lines(0, 10)), server_directory(), server_directory());
    fs::write(files.path().join("Patient-1.ndjson"), lines(20, 30)).unwrap();
    // One that is at work when the tables are locked, and goes on when they are not.
    let source = Slow::start(lines(100, 50_000), Manner { pause: Duration::from_millis(200), ..PLAIN });
    client.batch_execute("alter system set bulk.allowed_hosts = '127.0.0.1'").unwrap();
    client.batch_execute("select pg_reload_conf()").unwrap();
    wait_until("the setting is known", || value(&mut client, "current_setting('bulk.allowed_hosts')") == "127.0.0.1");
    assert_eq!(imports::call(&mut client, &json!({"id": "begun", "inputs": patient_input(&source.url())})).0, 200);
    wait_until("it is at work", || !source.begun.lock().unwrap().is_empty());
    let tables = value(
        &mut client,
        "select string_agg(format('%I.%I', n.nspname, c.relname), ', ') from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = 'bulk_internal' and c.relkind = 'r'",
    );
    let mut locker = database.connect_as("locker");
    locker.batch_execute(&format!("begin; lock table {tables} in access exclusive mode")).unwrap();
    let pid = value(&mut locker, "pg_backend_pid()");
    let import = json!({"id": "new", "inputs": patient_input(&file.url())});
    let backend = format!("set bulk.storage_backend = 'file'; set bulk.storage_file_directory = '{}'", storage.path().display());
    let calls = [
        format!("select bulk.load('{}', 'Patient')", file.url()),
        format!("select bulk.import('{import}')"),
        "select bulk.import_status('begun')".to_owned(),
        "select bulk.import_status_v2('begun')".to_owned(),
        "select bulk.import('{\"id\": \"begun\", \"action\": \"pause\"}')".to_owned(),
        "select bulk.validate('Patient')".to_owned(),
        format!("select bulk.load_from_bucket('{{\"bucket\": \"{}\"}}')", files.path().display()),
        format!("select bulk.load_from_bucket_status('{{\"bucket\": \"{}\"}}')", files.path().display()),
        format!("{backend}; select bulk.export()"),
        "select bulk.export_status('begun')".to_owned(),
        "select bulk.export_cancel('begun')".to_owned(),
        "select bulk.wait('begun')".to_owned(),
        "select bulk.cancel('begun')".to_owned(),
        "select bulk.purge_jobs()".to_owned(),
        "select bulk.restore_indexes()".to_owned(),
        "select bulk.forget_file('s3://bucket', 'x')".to_owned(),
        "select bulk.set_account('{\"resourceType\": \"AwsAccount\", \"id\": \"a\", \"region\": \"r\", \"access-key-id\": \"K\", \"secret-access-key\": \"S\"}')".to_owned(),
        "select bulk.drop_account('AwsAccount', 'a')".to_owned(),
    ];
    let waiting: Vec<_> = calls.iter().map(|call| apart(&database, call)).collect();
    for (call, waiting) in calls.iter().zip(waiting) {
        let failure = waiting.join().unwrap().unwrap_or_else(|| panic!("{call} waits for nothing"));
        assert_eq!(failure.code, "55P03", "{call}: {failure:?}");
        assert!(failure.detail.starts_with(&format!("process {pid} holds AccessExclusiveLock on bulk_internal.")), "{call}: {failure:?}");
        assert!(failure.hint.contains(&format!("pg_terminate_backend({pid})")), "{call}: {failure:?}");
    }
    // What needs none of them goes on meanwhile.
    assert_eq!(apart(&database, "select bulk.dump('Patient')").join().unwrap().map(|failure| failure.code), None);
    locker.batch_execute("rollback").unwrap();
    assert_eq!(value(&mut client, "select state from bulk.job where id = 'begun'"), "in-progress");
    assert_eq!(wait(&mut client, "begun"), "done");
}

test!("calls for a bucket wait for one another's commit, and for no other's", buckets);
fn buckets() {
    let database = shared().database();
    let mut client = database.connect();
    client.batch_execute("select bulk.create_resource_table('Patient')").unwrap();
    let (one, two) = (server_directory(), server_directory());
    for (directory, from) in [(&one, 0), (&two, 10)] {
        fs::write(directory.path().join("Patient-1.ndjson"), lines(from, from + 10)).unwrap();
    }
    let params = |directory: &tempfile::TempDir| json!({"bucket": directory.path().display().to_string()});
    client.batch_execute("begin").unwrap();
    assert_eq!(call(&mut client, &params(&one))["new-files-count"], 1);
    let pid = value(&mut client, "pg_backend_pid()");
    let mut other = database.connect();
    other.batch_execute("set lock_timeout = '300ms'").unwrap();
    assert_eq!(call(&mut other, &params(&two))["new-files-count"], 1);
    let failure = crate::support::statement::failure(&mut other, &format!("select bulk.load_from_bucket('{}')", params(&one)));
    assert_eq!(failure.code, "55P03", "{failure:?}");
    assert!(failure.detail.starts_with(&format!("process {pid} holds ExclusiveLock on ")), "{failure:?}");
    let again = apart(&database, &format!("select bulk.load_from_bucket('{}')", params(&one)));
    let waits = "select count(*) from pg_locks where locktype = 'advisory' and not granted and database = (select oid from pg_database where datname = current_database())";
    wait_until("the other call waits", || value(&mut other, waits) == "1");
    client.batch_execute("commit").unwrap();
    assert_eq!(again.join().unwrap().map(|failure| failure.message), None);
    assert_eq!(call(&mut client, &params(&one))["new-files-count"], 0);
}

test!("an export that is not committed is waited for, and refuses nobody", exports);
fn exports() {
    let database = shared().database();
    let (mut client, mut other) = (database.connect(), database.connect());
    let _storage = directory(&mut client);
    let _other_storage = directory(&mut other);
    client.batch_execute("select bulk.create_resource_table('Patient'); insert into patient (id, txid, status, resource) values ('a', 1, 'created', '{}')").unwrap();
    // Rolled back: the other's turn. Committed: it counts.
    for (end, expected) in [("rollback", 202), ("commit", 429)] {
        client.batch_execute("begin").unwrap();
        let begun = export(&mut client, "system", &json!({}), None);
        assert_eq!(begun.status, 202);
        let mut waiting = database.connect();
        let storage = directory(&mut waiting);
        let pid = value(&mut waiting, "pg_backend_pid()");
        let asked = std::thread::spawn(move || (export(&mut waiting, "system", &json!({}), None), storage, waiting));
        let waits = format!("select count(*) from pg_stat_activity where pid = {pid} and wait_event = 'Extension'");
        let mut seen = 0;
        wait_until("the other call waits", || {
            seen += usize::from(value(&mut other, &waits) == "1");
            seen == 5
        });
        // Its worker holds the export that is committed: it waits for a lock.
        let mut holder = database.connect();
        if end == "commit" {
            holder.batch_execute("begin; lock table patient in access exclusive mode").unwrap();
        }
        client.batch_execute(end).unwrap();
        let (answer, _storage, mut waiting) = asked.join().unwrap();
        assert_eq!(answer.status, expected, "{end}: {answer:?}");
        holder.batch_execute("rollback").unwrap();
        for (client, answer) in [(&mut client, &begun), (&mut waiting, &answer)] {
            if answer.status == 202 && !(end == "rollback" && answer.id() == begun.id()) {
                value(client, &format!("bulk.wait('{}', '60 s')", answer.id()));
            }
        }
    }
    // Whoever never commits holds others up for five seconds.
    client.batch_execute("begin").unwrap();
    assert_eq!(export(&mut client, "system", &json!({}), None).status, 202);
    assert_eq!(export(&mut other, "system", &json!({}), None).status, 202);
    client.batch_execute("rollback").unwrap();
}

test!("a session whose thread sits in a connect ends at once, and takes nobody with it", connecting);
fn connecting() {
    let cluster = Cluster::start();
    let database = cluster.database();
    let mut admin = database.connect();
    // Nobody accepts, and there is no room for more: a connect hangs.
    let full = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = full.local_addr().unwrap();
    rustix::net::listen(&full, 0).unwrap();
    let taken: Vec<TcpStream> = (0..64).map_while(|_| TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok()).collect();
    assert!(taken.len() < 64, "the queue of connections has no end");
    for end in ["pg_cancel_backend", "pg_terminate_backend", "pg_terminate_backend"] {
        let mut client = database.connect();
        client.batch_execute("set bulk.allowed_hosts = '127.0.0.1'").unwrap();
        let pid = value(&mut client, "pg_backend_pid()");
        let load = format!("select bulk.load('http://{address}/x.ndjson', 'Patient', options => '{{\"retries\": 0}}')");
        let loading = std::thread::spawn(move || {
            let failed = client.batch_execute(&load).is_err();
            (failed, client)
        });
        // As the system lists it: to this port, and not yet answered.
        let connects = || {
            let to = format!(":{:04X} 02 ", address.port());
            fs::read_to_string("/proc/net/tcp").unwrap().lines().any(|line| line.contains(&to))
        };
        wait_until("it connects", connects);
        let began = Instant::now();
        admin.batch_execute(&format!("select {end}({pid})")).unwrap();
        let (failed, _client) = loading.join().unwrap();
        assert!(failed && began.elapsed() < Duration::from_secs(5), "{end}: {:?}", began.elapsed());
        if end == "pg_terminate_backend" {
            wait_until("the process is gone", || !fs::exists(format!("/proc/{pid}")).unwrap());
        }
    }
    assert_eq!(value(&mut admin, "select 1"), "1");
    assert!(!cluster.log().contains("terminated by signal"));
}
