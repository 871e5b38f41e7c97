//! Sessions and servers that end in the middle of the work: nothing else may end with them.

use crate::support::cluster::{Cluster, Database, checked};
use crate::support::source::{Faulty, Then};
use crate::support::statement::{value, wait_until};
use crate::support::trial::{SERVER, WRITING, parts, test};
use std::fmt::Write;
use std::thread;
use std::time::Duration;

parts!(SERVER, WRITING);

/// Each of the four ways is tried this often.
const TIMES: u32 = 25;

/// Starts a statement in a session of its own and returns the session's pid.
fn start(database: &Database, statement: String) -> (i32, thread::JoinHandle<()>) {
    let mut client = database.connect();
    let pid = client.query_one("select pg_backend_pid()", &[]).unwrap().get(0);
    let running = thread::spawn(move || {
        // The session is ended: an error is what must come.
        client.batch_execute(&statement).unwrap_err();
    });
    (pid, running)
}

test!("terminating a session and shutting down fast, 100 times in a load or a dump, never restarts the cluster", hundred_times);
fn hundred_times() {
    let cluster = Cluster::start();
    let database = cluster.database();
    let mut lines = String::new();
    for id in 0..200_000 {
        writeln!(lines, "{{\"id\":\"{id}\",\"resourceType\":\"Patient\",\"name\":[{{\"family\":\"F{id}\",\"given\":[\"A\",\"B\"]}}]}}")
            .unwrap();
    }
    let file = crate::support::source::File::new(lines.as_bytes());
    database.connect().batch_execute(&format!("select bulk.load('{}')", file.url())).unwrap();
    let hanging = Faulty::start(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(), Then::Hang);
    let statement = |round: u32, load: bool| match (load, round % 2) {
        (true, 0) => format!("select bulk.load('{}')", file.url()),
        (true, _) => format!("select bulk.load('{}')", hanging.url()),
        (false, 0) => "select count(*) from generate_series(1, 100) g, lateral (select bulk.dump('Patient', fhir => g > 0)) x".to_owned(),
        (false, _) => {
            "select sum(length(b)) from (select bulk.dump_bytes('Patient', gzip => g > 0) as b from generate_series(1, 100) g) x".to_owned()
        }
    };
    let mut began = 0;
    for load in [true, false] {
        for round in 0..TIMES {
            let (pid, running) = start(&database, statement(round, load));
            thread::sleep(Duration::from_millis(u64::from(round * 7 % 60) + 5));
            database.connect().batch_execute(&format!("select pg_terminate_backend({pid})")).unwrap();
            running.join().unwrap();
            wait_until("the session is gone", || !std::path::Path::new(&format!("/proc/{pid}")).exists());
            began += 1;
        }
        for round in 0..TIMES {
            let (_, running) = start(&database, statement(round, load));
            thread::sleep(Duration::from_millis(u64::from(round * 11 % 60) + 5));
            cluster.stop("fast");
            running.join().unwrap();
            cluster.boot();
            began += 1;
        }
    }
    assert_eq!(began, 4 * TIMES);
    let log = cluster.log();
    for sign in ["terminated by signal", "reinitializing", "PANIC", "was not properly shut down"] {
        assert!(!log.contains(sign), "the log says {sign}");
    }
    let mut client = database.connect();
    let count: i64 = client.query_one("select count(*) from patient", &[]).unwrap().get(0);
    assert_eq!(count, 200_000);
}

/// Patients with these ids, said by `say`.
fn patients(ids: std::ops::Range<u32>, say: &str) -> String {
    ids.map(|id| format!("{{\"id\":\"{id}\",\"note\":\"{say}\",\"text\":\"{}\"}}\n", "word ".repeat(id as usize % 900))).collect()
}

test!("kill -9 in the middle of a load leaves what was there before, whole", killed);
fn killed() {
    let cluster = Cluster::start();
    let database = cluster.database();
    let mut client = database.connect();
    let before = crate::support::source::File::new(patients(0..5000, "before").as_bytes());
    client.batch_execute(&format!("select bulk.load('{}', 'Patient')", before.url())).unwrap();
    drop(client);
    // Half of it overwrites, half is new; it does not end by itself.
    let (after, mut answer) = (patients(2500..7500, "after"), b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec());
    answer.extend_from_slice(format!("{:x}\r\n{after}\r\n", after.len()).as_bytes());
    let source = Faulty::start(answer, Then::Hang);
    let (pid, running) = start(&database, format!("select bulk.load('{}', 'Patient')", source.url()));
    let mut watch = database.connect();
    let written = format!("select coalesce(max(tuples_processed), 0) > 3500 from pg_stat_progress_copy where pid = {pid}");
    wait_until("the load has written over old rows and begun with new ones", || value(&mut watch, &written) == "true");
    drop(watch);
    checked(std::process::Command::new("kill").args(["-9", &pid.to_string()]));
    running.join().unwrap();
    // For a moment after the kill the server still takes connections, which it then ends.
    wait_until("the server has noticed", || cluster.log().contains("all server processes terminated; reinitializing"));
    wait_until("the cluster has recovered", || database.try_connect().is_some());
    let mut client = database.connect();
    assert_eq!(
        value(&mut client, "select count(*) || ' ' || count(*) filter (where resource->>'note' = 'before') from patient"),
        "5000 5000"
    );
    crate::support::integrity::check(database.connect());
    let whole = crate::support::source::File::new(after.as_bytes());
    assert_eq!(value(&mut client, &format!("bulk.load('{}', 'Patient')", whole.url())), r#"{"total": 5000}"#);
    assert_eq!(
        value(&mut client, "select count(*) || ' ' || count(*) filter (where resource->>'note' = 'before') from patient"),
        "7500 2500"
    );
}
