//! Imports that a stop of the server or a dump of the database leaves unfinished go on.

use crate::support::cluster::{Cluster, checked, replay};
use crate::support::imports::{HANGS, PLAIN, act, call, counts, patient_input, patients, rows, wait};
use crate::support::source::{File, Manner, Slow};
use crate::support::statement::{value, wait_until};
use crate::support::trial::{SERVER, WRITING, parts, test};
use postgres::Client;
use serde_json::json;

parts!(SERVER, WRITING);

test!("a dump holds imports, and a restored one goes on from where it was paused", restored);
fn restored() {
    let cluster = Cluster::start();
    let database = cluster.database();
    let mut client = database.connect();
    let lines = patients(60_000);
    let file = File::new(&lines);
    client.batch_execute(&format!("select bulk.load('{}', 'Patient')", file.url())).unwrap();
    let expected = rows(&mut client, "patient");
    client.batch_execute("drop table patient, patient_history").unwrap();
    let source = Slow::start(lines, Manner { most: 4_000_000, ..HANGS });
    // What needs no secret.
    let open = source.url().split('?').next().unwrap().to_owned();
    for (id, kind, url) in [("paused", "Patient", &open), ("secret", "Goal", &source.url())] {
        assert_eq!(call(&mut client, &json!({"id": id, "inputs": [{"resourceType": kind, "url": url}]})).0, 200);
        let stored = format!("select coalesce(stored, 0) > 0 from bulk.job where id = '{id}'");
        wait_until("some rows are stored", || value(&mut client, &stored) == "true");
        assert_eq!(act(&mut client, id, "pause").0, 200);
    }
    let small = File::new(&patients(10));
    assert_eq!(call(&mut client, &json!({"id": "done", "inputs": [{"resourceType": "Practitioner", "url": small.url()}]})).0, 200);
    assert_eq!(wait(&mut client, "done"), "done");
    let script = checked(cluster.client("pg_dump", &database.name).arg("--no-sync")).stdout;
    assert!(!String::from_utf8_lossy(&script).contains("SECRET"));
    cluster.connect("postgres", "postgres").batch_execute("create database copy").unwrap();
    replay(&mut cluster.psql("copy"), &script);
    let mut copy = cluster.connect("copy", "postgres");
    assert_eq!(
        value(&mut copy, "select string_agg(id || ' ' || state, ', ' order by id) from bulk.job where kind = 'import'"),
        "done done, paused paused, secret paused"
    );
    source.behave(PLAIN);
    let before = source.begun.lock().unwrap().len();
    assert_eq!(act(&mut copy, "paused", "resume").0, 200);
    assert_eq!(wait(&mut copy, "paused"), "done");
    assert!(source.begun.lock().unwrap()[before] > 0);
    assert_eq!(counts(&mut copy, "paused"), "done 60000 60000 0 0");
    assert_eq!(rows(&mut copy, "patient"), expected);
    assert_eq!(act(&mut copy, "secret", "resume").0, 200);
    assert_eq!(wait(&mut copy, "secret"), "error");
    // In the database itself it goes on.
    assert_eq!(act(&mut client, "secret", "resume").0, 200);
    assert_eq!(wait(&mut client, "secret"), "done");
}

test!("a launcher goes on with imports after a restart, in every database, and starts what waits", launched);
fn launched() {
    let cluster = Cluster::start_with("shared_preload_libraries = 'bulk'\nmax_worker_processes = 6\n");
    let databases = [cluster.database(), cluster.database()];
    let lines = patients(100_000);
    let source = Slow::start(lines.clone(), Manner { most: 4_000_000, hangs: true, ..PLAIN });
    for database in &databases {
        let mut client = database.connect();
        assert_eq!(call(&mut client, &json!({"id": "a", "inputs": patient_input(&source.url())})).0, 200);
        wait_until("some rows are stored", || value(&mut client, "select coalesce(stored, 0) > 0 from bulk.job") == "true");
        assert_eq!(value(&mut client, "select count(*) from pg_stat_activity where backend_type = 'bulk launcher'"), "1");
    }
    let mut client = databases[0].connect();
    // A copy does not go on by itself; nor does what is paused.
    let terminated = value(&mut client, "select pid from bulk.job_file");
    client.batch_execute(&format!("select pg_terminate_backend({terminated})")).unwrap();
    wait_until("it is interrupted", || value(&mut client, "select state from bulk.job") == "interrupted");
    drop(client);
    let mut admin = cluster.connect("postgres", "postgres");
    admin.batch_execute(&format!("create database copy template {}", databases[0].name)).unwrap();
    let mut client = databases[0].connect();
    assert_eq!(call(&mut client, &json!({"id": "p", "inputs": patient_input(&source.url())})).0, 200);
    assert_eq!(act(&mut client, "p", "pause").0, 200);
    cluster.stop("immediate");
    source.behave(PLAIN);
    cluster.boot();
    for database in &databases {
        let mut client = database.connect();
        wait_until("it is done", || value(&mut client, "select state from bulk.job where id = 'a'") == "done");
        assert_eq!(counts(&mut client, "a"), "done 100000 100000 0 0");
    }
    let mut client = databases[0].connect();
    assert_eq!(value(&mut client, "select state from bulk.job where id = 'p'"), "paused");
    let mut copy = cluster.connect("copy", "postgres");
    assert_eq!(value(&mut copy, "select state from bulk.job"), "interrupted");
    // What the server has no room for starts when there is some, though nobody calls: the launcher and that of replication have two places.
    source.behave(Manner { most: 1000, hangs: true, ..PLAIN });
    let before = source.begun.lock().unwrap().len();
    let mut busy = databases[1].connect();
    for number in 0..4 {
        assert_eq!(call(&mut busy, &json!({"id": format!("b{number}"), "inputs": patient_input(&source.url())})).0, 200);
    }
    let working = "select count(*) from pg_stat_activity where backend_type = 'bulk worker'";
    wait_until("all places are taken", || value(&mut busy, working) == "4" && source.begun.lock().unwrap().len() == before + 4);
    source.behave(PLAIN);
    assert_eq!(call(&mut client, &json!({"id": "w", "inputs": patient_input(&source.url())})).0, 200);
    let state = |client: &mut Client| value(client, "select state || coalesce(': ' || message, '') from bulk.job where id = 'w'");
    wait_until("it waits", || state(&mut client) == "waiting: max_worker_processes is used up");
    for number in 0..4 {
        assert_eq!(act(&mut busy, &format!("b{number}"), "abort").0, 200);
    }
    wait_until("it was started and is done", || state(&mut client) == "done");
    wait_until("no worker is left", || value(&mut client, working) == "0");
    assert!(!cluster.log().contains("PANIC"));
}
