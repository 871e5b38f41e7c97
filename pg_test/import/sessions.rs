//! Import: the answers of every state, the same rows as a load whatever happens on the way, nothing lost and nothing twice.

use crate::support::cluster::{Cluster, Database, checked, replay, server_directory, shared};
use crate::support::faults::next;
use crate::support::imports::{HANGS, PLAIN, act, call, counts, patient_input, patients, rows, wait};
use crate::support::source::{File, Manner, Slow, gzip};
use crate::support::statement::{failure, value, wait_until};
use crate::support::trial::{SERVER, WRITING, parts, test};
use postgres::Client;
use serde_json::{Value, json};
use std::fmt::Write;
use std::fs;
use std::time::Duration;

parts!(SERVER, WRITING);

fn status_of(client: &mut Client, function: &str, id: &str) -> (i32, Value) {
    let row = client.query_one(&format!("select status, body::text from bulk.{function}($1)"), &[&id]).unwrap();
    (row.get(0), serde_json::from_str(row.get(1)).unwrap())
}

test!("every action in every state of an import has its answer", states);
fn states() {
    let database = shared().database();
    let mut client = database.connect();
    let hanging = Slow::start(patients(20_000), HANGS);
    let good = File::new(&patients(10));
    let mut number = 0;
    // A session in a state.
    let mut session = |client: &mut Client, state: &str| {
        number += 1;
        let id = format!("s{number}");
        let url = match state {
            "done" => good.url(),
            "error" => "file:///nowhere".to_owned(),
            _ => hanging.url(),
        };
        assert_eq!(call(client, &json!({"id": id, "inputs": patient_input(&url)})).0, 200);
        match state {
            "active" => {
                let working = format!("select count(*) from bulk.job_file where job_id = '{id}' and pid is not null");
                wait_until("it is at work", || value(client, &working) == "1");
            }
            "paused" => assert_eq!(act(client, &id, "pause").0, 200),
            "aborted" => assert_eq!(act(client, &id, "abort").0, 200),
            ended => assert_eq!(wait(client, &id), ended),
        }
        id
    };
    let table = [
        ("start", "active", 409, "active"),
        ("start", "paused", 409, "paused"),
        ("start", "aborted", 409, "aborted"),
        ("start", "error", 409, "error"),
        ("start", "done", 409, "done"),
        ("abort", "active", 200, "aborted"),
        ("abort", "paused", 200, "aborted"),
        ("abort", "aborted", 406, "aborted"),
        ("abort", "error", 406, "error"),
        ("abort", "done", 406, "done"),
        ("resume", "paused", 200, "active"),
        ("resume", "active", 406, "active"),
        ("resume", "aborted", 406, "aborted"),
        ("resume", "error", 406, "error"),
        ("resume", "done", 406, "done"),
        ("force-resume", "paused", 200, "active"),
        ("force-resume", "active", 200, "active"),
        ("force-resume", "error", 200, "active"),
        ("force-resume", "aborted", 406, "aborted"),
        ("force-resume", "done", 406, "done"),
        ("pause", "active", 200, "paused"),
        ("pause", "paused", 406, "paused"),
        ("pause", "aborted", 406, "aborted"),
        ("pause", "error", 406, "error"),
        ("pause", "done", 406, "done"),
    ];
    for (action, state, expected, next) in table {
        let id = session(&mut client, state);
        client.batch_execute("begin").unwrap();
        let (status, _, body) = call(&mut client, &json!({"id": id, "action": action, "inputs": patient_input(&hanging.url())}));
        let after = value(&mut client, &format!("select state from bulk.job where id = '{id}'"));
        client.batch_execute("commit").unwrap();
        let cell = format!("{action} of {state}");
        assert_eq!(status, expected, "{cell}: {body}");
        let after = if matches!(after.as_str(), "waiting" | "in-progress") { "active" } else { &after };
        assert_eq!(after, next, "{cell}");
        if status == 200 {
            assert_eq!(body["id"], id, "{cell}");
        } else {
            assert!(body["message"].as_str().unwrap().len() > 10, "{cell}: {body}");
        }
        act(&mut client, &id, "abort");
    }
    for action in ["abort", "resume", "force-resume", "pause"] {
        let (status, body) = act(&mut client, "unknown", action);
        assert_eq!((status, body["message"].as_str()), (404, Some("there is no import \"unknown\"")), "{action}");
    }
    // A session without a worker: active, and to be gone on with.
    let id = session(&mut client, "active");
    let pid = value(&mut client, &format!("select pid from bulk.job_file where job_id = '{id}'"));
    client.batch_execute(&format!("select pg_terminate_backend({pid})")).unwrap();
    wait_until("it is interrupted", || value(&mut client, &format!("select state from bulk.job where id = '{id}'")) == "interrupted");
    assert_eq!(act(&mut client, &id, "resume").0, 406);
    assert_eq!(act(&mut client, &id, "force-resume").0, 200);
    let working = format!("select count(pid) || ' ' || state from bulk.job_file where job_id = '{id}' group by state");
    wait_until("it is at work again", || value(&mut client, &working) == "1 in-progress");
    // There is no second worker for one that is at work.
    assert_eq!(act(&mut client, &id, "force-resume").0, 200);
    assert_eq!(value(&mut client, &working), "1 in-progress");
    assert_eq!(act(&mut client, &id, "abort").0, 200);
}

test!("a start answers 201, 200, 409, 400 or 403", starts);
fn starts() {
    let database = shared().database();
    let mut client = database.connect();
    let file = File::new(&patients(10));
    let inputs = patient_input(&file.url());
    let (status, location, body) = call(&mut client, &json!({"inputs": inputs}));
    let id = body["id"].as_str().unwrap().to_owned();
    assert_eq!((status, location), (201, format!("/BulkImportStatus/{id}")));
    assert_eq!(id.len(), 36);
    assert_eq!(wait(&mut client, &id), "done");
    client.batch_execute("set bulk.base_url = 'https://box.example.org/'").unwrap();
    let (status, location, _) = call(&mut client, &json!({"resource": {"id": "a b/\u{fc}", "secret": "s", "inputs": inputs}}));
    assert_eq!((status, location.as_str()), (200, "https://box.example.org/BulkImportStatus/a%20b%2F%C3%BC"));
    for (request, expected, said) in [
        (json!({"id": id, "inputs": inputs}), 409, "already"),
        (json!({"inputs": []}), 400, "inputs"),
        (json!([]), 400, "object"),
        (json!({"inputs": inputs, "mood": 1}), 400, "\"mood\""),
        (json!({"inputs": inputs, "update": 1}), 400, "update"),
        (json!({"inputs": patient_input("ftp://x/y")}), 400, "no URL"),
        (json!({"inputs": [{"resourceType": "Nonsense", "url": file.url()}]}), 400, "Nonsense"),
        (json!({"inputs": [{"type": "Patient", "url": "x", "storageDetail": {"type": "resource-file"}}]}), 400, "resource_directory"),
        (json!({"id": "x\ny", "inputs": inputs}), 400, "id must"),
        (json!({"action": "abort"}), 400, "id is missing"),
    ] {
        let (status, location, body) = call(&mut client, &request);
        assert_eq!((status, location.as_str()), (expected, ""), "{request}");
        assert!(body["message"].as_str().unwrap().contains(said), "{request}: {body}");
    }
    assert_eq!(value(&mut client, "(bulk.import(null)).status"), "400");
    // Paths, and files below a directory of the installation's.
    let directory = server_directory();
    fs::create_dir(directory.path().join("deep")).unwrap();
    fs::write(directory.path().join("deep/p.ndjson"), patients(3)).unwrap();
    client.batch_execute(&format!("set bulk.resource_directory = '{}'", directory.path().display())).unwrap();
    let inputs = json!([{"type": "Patient", "url": "deep/p.ndjson", "storageDetail": {"type": "resource-file"}},
        {"type": "patient", "url": directory.path().join("deep/p.ndjson"), "storageDetail": {"type": "url"}}]);
    assert_eq!(call(&mut client, &json!({"id": "files", "inputs": inputs})).0, 200);
    assert_eq!(wait(&mut client, "files"), "done");
    assert_eq!(counts(&mut client, "files"), "done 6 6 0 0");
    // Rights.
    let name = format!("nobody_{}", database.name);
    client.batch_execute(&format!("create role {name} login")).unwrap();
    let mut nobody = database.connect_as(&name);
    let (status, _, body) = call(&mut nobody, &json!({"inputs": patient_input(&file.url())}));
    assert_eq!((status, body["message"].as_str()), (403, Some("permission denied to read files of the server")));
    assert_eq!(call(&mut nobody, &json!({"inputs": patient_input("http://127.0.0.1:1/")})).0, 403);
    for action in ["abort", "pause", "resume", "force-resume"] {
        assert_eq!(act(&mut nobody, "files", action).0, 403, "{action}");
    }
    assert_eq!(status_of(&mut nobody, "import_status", "files").0, 403);
    assert_eq!(failure(&mut nobody, "select * from bulk_internal.job_secret").code, "42501");
    client.batch_execute(&format!("grant bulk_admin to {name}")).unwrap();
    assert_eq!(act(&mut nobody, "files", "abort").0, 406);
    assert_eq!(failure(&mut client, "begin read only; select bulk.import('{}')").code, "25006");
}

test!("the status of an import has the shape of its request, and no secret", status);
fn status() {
    let database = shared().database();
    let mut client = database.connect();
    let (lines, count) = (patients(2000), 2000);
    let source = Slow::start(gzip(&lines), PLAIN);
    let old = json!({"id": "old", "action": "start", "inputFormat": "application/fhir+ndjson", "inputSource": "source", "secret": "s",
        "inputs": [{"type": "Patient", "url": source.url(), "storageDetail": {"type": "url"}}]});
    assert_eq!(call(&mut client, &old).0, 200);
    assert_eq!(wait(&mut client, "old"), "done");
    let (status, body) = status_of(&mut client, "import_status", "old");
    assert_eq!(status, 200);
    let open = source.url().split('?').next().unwrap().to_owned();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<String>>().join(" ");
    assert_eq!(keys(&body), "action id inputFormat inputSource inputs meta resourceType status time type");
    assert_eq!(body["inputs"], json!([{"type": "Patient", "url": open, "storageDetail": {"type": "url"}}]));
    assert_eq!((body["status"]["process"].as_str(), body["status"]["message"].as_str()), (Some("done"), Some("")));
    let thread = &body["status"]["jobs"][0]["threads"][0];
    assert_eq!(thread["state"], "finished-copying");
    assert_eq!(keys(&thread["bytes"]), "bytes-read bytes-written kbs-rate objects-copied objects-read symbols-read");
    let text = String::from_utf8(lines.clone()).unwrap();
    assert_eq!(thread["bytes"]["bytes-read"], lines.len());
    assert_eq!(thread["bytes"]["symbols-read"], text.chars().count());
    assert_eq!((&thread["bytes"]["objects-read"], &thread["bytes"]["objects-copied"]), (&json!(count), &json!(count)));
    assert!(thread["bytes"]["kbs-rate"].as_f64().unwrap() > 0.0);
    // The present shape, with an input that fails.
    let nowhere = "file:///nowhere/x.ndjson";
    let new = json!({"id": "new", "contentEncoding": "gzip", "inputs": [{"resourceType": "Patient", "url": source.url()}, {"resourceType": "Goal", "url": nowhere}]});
    assert_eq!(call(&mut client, &new).0, 200);
    assert_eq!(wait(&mut client, "new"), "error");
    let (_, body) = status_of(&mut client, "import_status", "new");
    assert_eq!(keys(&body), "contentEncoding id inputs meta resourceType status time type");
    assert_eq!((body["status"].as_str(), body["type"].as_str()), (Some("finished"), Some("aidbox")));
    assert_eq!(keys(&body["inputs"][0]), "duration resourceType status total ts url");
    assert_eq!((&body["inputs"][0]["total"], &body["inputs"][0]["status"]), (&json!(count), &json!("finished")));
    assert_eq!(body["inputs"][1], json!({"resourceType": "Goal", "url": nowhere, "status": "failed", "error": "no such file"}));
    let (_, body) = status_of(&mut client, "import_status_v2", "new");
    assert_eq!((&body["status"], &body["outcome"]), (&json!("done"), &json!("failed")));
    assert_eq!(body["inputs"][0]["result"], json!({"imported-resources": count}));
    assert_eq!(body["error"]["message"], json!(format!("Import for some files failed with an error: task 'Goal {nowhere} failed")));
    let (_, body) = status_of(&mut client, "import_status_v2", "old");
    assert_eq!(
        body["result"],
        json!({"message": "All input files imported, 2000 new resources loaded", "total-files": 1, "total-imported-resources": 2000})
    );
    // Running.
    source.behave(HANGS);
    source.replace(gzip(&patients(100_000)), "second");
    let running = json!({"id": "run", "inputs": patient_input(&source.url())});
    assert_eq!(call(&mut client, &running).0, 200);
    wait_until("it is at work", || status_of(&mut client, "import_status", "run").1["inputs"][0]["status"] == "in-progress");
    let (_, body) = status_of(&mut client, "import_status", "run");
    assert_eq!(keys(&body), "id inputs meta resourceType time type");
    assert_eq!(status_of(&mut client, "import_status_v2", "run").1["status"], "in-progress");
    // What is secret stands in one table, which nobody reads, as long as it is needed.
    let secret = |client: &mut Client| {
        value(
            client,
            "select string_agg(j.id, ' ' order by j.id) from bulk_internal.job_secret s join bulk_internal.job j on j.number = s.job where s.secret::text ~ 'SECRET'",
        )
    };
    assert_eq!(secret(&mut client), "new run");
    for table in ["job", "job_spec", "task", "task_source", "load_error"] {
        assert_eq!(value(&mut client, &format!("select count(*) from bulk_internal.{table} t where t::text ~ 'SECRET'")), "0", "{table}");
    }
    let activity =
        "select count(*) from pg_stat_activity where pid <> pg_backend_pid() and datname = current_database() and query ~ 'SECRET'";
    assert_eq!(value(&mut client, activity), "0");
    let dump = checked(database.cluster.client("pg_dump", &database.name).arg("--no-sync")).stdout;
    assert!(!String::from_utf8_lossy(&dump).contains("SECRET"));
    assert_eq!(act(&mut client, "run", "abort").0, 200);
    assert_eq!(secret(&mut client), "new");
    assert_eq!(status_of(&mut client, "import_status", "run").1["status"], "aborted");
    assert_eq!(status_of(&mut client, "import_status_v2", "run").1["outcome"], "canceled");
    assert_eq!(status_of(&mut client, "import_status", "none").0, 404);
    assert_eq!(status_of(&mut client, "import_status_v2", "none").0, 404);
}

test!("an import stores what a load stores", same_as_load);
fn same_as_load() {
    let database = shared().database();
    let mut client = database.connect();
    let lines = patients(30_000);
    let [plain, single, members] =
        [lines.clone(), gzip(&lines), lines.chunks(100_000).flat_map(gzip).collect()].map(|bytes| Slow::start(bytes, PLAIN));
    let file = File::new(&lines);
    for (options, twice) in [(json!({}), false), (json!({"update": true}), true), (json!({"on-conflict": "skip"}), true)] {
        client.batch_execute("drop table if exists patient, patient_history").unwrap();
        for _ in 0..=u8::from(twice) {
            client.batch_execute(&format!("select bulk.load('{}', 'Patient', true, '{options}')", file.url())).unwrap();
        }
        let (expected, history) = (rows(&mut client, "patient"), rows(&mut client, "patient_history"));
        for source in [&plain, &single, &members] {
            client.batch_execute("drop table patient, patient_history").unwrap();
            for _ in 0..=u8::from(twice) {
                let mut request = json!({"inputs": patient_input(&source.url())});
                request.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
                let row = client.query_one("select body->>'id' from bulk.import($1::text::jsonb, true)", &[&request.to_string()]).unwrap();
                let id: String = row.get(0);
                assert_eq!(wait(&mut client, &id), "done");
                assert!(counts(&mut client, &id).starts_with("done 30000 "));
            }
            assert_eq!(
                (rows(&mut client, "patient"), rows(&mut client, "patient_history")),
                (expected.clone(), history.clone()),
                "{options}"
            );
        }
    }
}

/// Observations of so many patients, one after another and then again: each id comes back far behind.
fn rounds(count: u32, ids: u32) -> Vec<u8> {
    let mut lines = String::new();
    for n in 0..count {
        writeln!(
            lines,
            "{{\"id\":\"p{}\",\"birthDate\":\"1990\",\"name\":[{{\"family\":\"F{n}{}\"}}]}}",
            n % ids,
            "x".repeat(n as usize % 300)
        )
        .unwrap();
    }
    lines.into_bytes()
}

test!("a long plain source is imported in ranges, with the rows of one after another", ranges);
fn ranges() {
    let database = shared().database();
    let mut client = database.connect();
    client.batch_execute("set bulk.range_size = '256kB'").unwrap();
    let lines = rounds(40_000, 15_000);
    let file = File::new(&lines);
    let load = format!("select bulk.load('{}', 'Patient')", file.url());
    client.batch_execute(&load).unwrap();
    let once = rows(&mut client, "patient");
    client.batch_execute(&load).unwrap();
    let twice = rows(&mut client, "patient");
    let source = Slow::start(lines.clone(), PLAIN);
    let expected = lines.len().div_ceil(256 * 1024);
    for (url, fast) in [(source.url(), "on"), (file.url(), "off")] {
        client.batch_execute(&format!("drop table patient, patient_history; set bulk.fast_path = {fast}")).unwrap();
        for (round, rows_then) in [(1, &once), (2, &twice)] {
            let id = format!("{fast} {round}");
            assert_eq!(
                call(
                    &mut client,
                    &json!({"id": id, "action": "start", "inputs": [{"type": "Patient", "url": url, "storageDetail": {"type": "url"}}]})
                )
                .0,
                200
            );
            assert_eq!(
                wait(&mut client, &id),
                "done",
                "{id}: {}",
                value(&mut client, &format!("select message from bulk.job where id = '{id}'"))
            );
            assert_eq!(counts(&mut client, &id), "done 40000 40000 0 0");
            assert_eq!(&rows(&mut client, "patient"), rows_then, "{id}");
            let parts = format!(
                "select count(*) || ' ' || sum(range_to - range_from) || ' ' || sum(size) || ' ' || sum(position) from bulk.job_file where job_id = '{id}'"
            );
            assert_eq!(value(&mut client, &parts), format!("{expected} {0} {0} {0}", lines.len()));
            let (_, body) = status_of(&mut client, "import_status", &id);
            let threads = body["status"]["jobs"][0]["threads"].as_array().unwrap();
            let sum = |name: &str| threads.iter().map(|thread| thread["bytes"][name].as_u64().unwrap()).sum::<u64>();
            assert_eq!((threads.len(), sum("objects-copied"), sum("bytes-read")), (expected, 40_000, lines.len() as u64));
            let (_, body) = status_of(&mut client, "import_status_v2", &id);
            assert_eq!(body["inputs"].as_array().unwrap().len(), 1);
            assert_eq!(body["inputs"][0]["result"]["imported-resources"], 40_000);
        }
    }
    // Versions that come from elsewhere are later.
    client.batch_execute("reset bulk.fast_path").unwrap();
    assert_eq!(value(&mut client, "select nextval('transaction_id_seq') > max(txid) from patient"), "true");
    // Two workers were at it, and all lines of what is not valid are told.
    assert!(source.begun.lock().unwrap().len() > expected);
    let mut broken = lines.clone();
    let at = lines.len() - 1000;
    broken[at] = b'\n';
    source.replace(broken.clone(), "broken");
    source.behave(Manner { pause: Duration::from_millis(5), ..PLAIN });
    assert_eq!(call(&mut client, &json!({"id": "broken", "inputs": patient_input(&source.url())})).0, 200);
    assert_eq!(wait(&mut client, "broken"), "error");
    let found = client.query("select line, byte_offset from bulk.load_error where load_id = 'broken' order by byte_offset", &[]).unwrap();
    let start = 1 + broken[..at].iter().rposition(|byte| *byte == b'\n').unwrap();
    assert_eq!(found.iter().map(|row| row.get(1)).collect::<Vec<i64>>(), [start as i64, at as i64 + 1]);
    if let Some(line) = found[0].get::<_, Option<i64>>(0) {
        assert_eq!(line, 1 + broken[..start].iter().filter(|byte| **byte == b'\n').count() as i64);
    }
    // A range that fails takes with it those that nobody is at; resumed, all go on.
    let mut broken = lines.clone();
    broken[1000] = b'\n';
    source.replace(broken, "other");
    assert_eq!(call(&mut client, &json!({"id": "first", "inputs": patient_input(&source.url())})).0, 200);
    assert_eq!(wait(&mut client, "first"), "error");
    let states = "select string_agg(distinct state, ' ') || ' ' || (sum(read) < 30000) from bulk.job_file where job_id = 'first'";
    assert!(matches!(value(&mut client, states).as_str(), "error true" | "done error true"), "{}", value(&mut client, states));
    source.replace(lines.clone(), "other");
    assert_eq!(act(&mut client, "first", "force-resume").0, 200);
    assert_eq!(wait(&mut client, "first"), "done");
    assert_eq!(counts(&mut client, "first"), "done 40000 40000 0 0");
    // Rows with versions beyond the sequence are written over as any.
    client.batch_execute("update patient set txid = 1e15 + txid, resource = '{}'").unwrap();
    assert_eq!(call(&mut client, &json!({"id": "beyond", "inputs": patient_input(&source.url())})).0, 200);
    assert_eq!(wait(&mut client, "beyond"), "done");
    assert_eq!(rows(&mut client, "patient"), twice);
    // Not where the order of lines matters for more, nor without the means.
    source.replace(lines.clone(), "first");
    source.behave(PLAIN);
    for (id, options) in
        [("update", json!({"update": true})), ("errors", json!({"max-errors": 1})), ("once", json!({"mode": "transaction"}))]
    {
        let mut request = json!({"id": id, "inputs": patient_input(&source.url())});
        request.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
        assert_eq!(call(&mut client, &request).0, 200);
        assert_eq!(wait(&mut client, id), "done");
        assert_eq!(value(&mut client, &format!("select count(*) from bulk.job_file where job_id = '{id}'")), "1", "{id}");
    }
    let name = &database.name;
    client.batch_execute(&format!("create role poor_{name}; grant bulk_remote to poor_{name}; grant select, insert, update on patient, patient_history to poor_{name};
        grant usage on sequence transaction_id_seq to poor_{name}; set role poor_{name}")).unwrap();
    assert_eq!(call(&mut client, &json!({"id": "poor", "inputs": patient_input(&source.url())})).0, 200);
    assert_eq!(wait(&mut client, "poor"), "done");
    assert_eq!(value(&mut client, "select count(*) from bulk.job_file where job_id = 'poor'"), "1");
    // With UPDATE alone it goes on from where it is.
    client.batch_execute(&format!("reset role; revoke usage on sequence transaction_id_seq from poor_{name}; grant update on sequence transaction_id_seq to poor_{name}")).unwrap();
    let last = value(&mut client, "select last_value from transaction_id_seq");
    client.batch_execute(&format!("set role poor_{name}")).unwrap();
    assert_eq!(call(&mut client, &json!({"id": "moved", "inputs": patient_input(&source.url())})).0, 200);
    assert_eq!(wait(&mut client, "moved"), "done");
    client.batch_execute("reset role").unwrap();
    assert_eq!(value(&mut client, &format!("select last_value > {last} + {} from transaction_id_seq", lines.len())), "true");
    assert_eq!(value(&mut client, "select count(*) > 1 from bulk.job_file where job_id = 'moved'"), "true");
    source.behave(Manner { ranges: false, ..PLAIN });
    assert_eq!(call(&mut client, &json!({"id": "whole", "inputs": patient_input(&source.url())})).0, 200);
    assert_eq!(wait(&mut client, "whole"), "done");
    assert_eq!(value(&mut client, "select count(*) from bulk.job_file where job_id = 'whole'"), "1");
    client.batch_execute("drop sequence transaction_id_seq; create sequence transaction_id_seq as int").unwrap();
    source.behave(PLAIN);
    assert_eq!(call(&mut client, &json!({"id": "narrow", "inputs": patient_input(&source.url())})).0, 200);
    assert_eq!(wait(&mut client, "narrow"), "done");
    assert_eq!(value(&mut client, "select count(*) from bulk.job_file where job_id = 'narrow'"), "1");
}

test!("ids that are there turn up in the middle of an import of new ones", known_ids);
fn known_ids() {
    let database = shared().database();
    let mut client = database.connect();
    client
        .batch_execute(
            "select bulk.create_resource_table('Patient');
            insert into patient (id, txid, status, resource) select 'p' || n, n, 'created', '{}' from generate_series(2500, 6000, 1000) n",
        )
        .unwrap();
    let mut state = 1;
    let mut lines = String::new();
    // Several groups of rows that do not get smaller.
    for n in 0..6000 {
        write!(lines, "{{\"id\":\"p{n}\",\"name\":[{{\"family\":\"").unwrap();
        (0..1000).for_each(|_| write!(lines, "{:08x}", next(&mut state) as u32).unwrap());
        lines.push_str("\"}]}\n");
    }
    let file = File::new(&gzip(lines.as_bytes()));
    assert_eq!(call(&mut client, &json!({"id": "k", "inputs": patient_input(&file.url())})).0, 200);
    assert_eq!(wait(&mut client, "k"), "done");
    assert_eq!(counts(&mut client, "k"), "done 6000 6000 0 0");
    let states =
        "select string_agg(status || ' ' || n, ', ' order by status) from (select status::text, count(*) n from patient group by 1) x";
    assert_eq!(value(&mut client, states), "created 5996, updated 4");
    assert_eq!(value(&mut client, "select count(distinct txid) from patient where resource <> '{}'"), "6000");
}

test!("an import goes on where its source broke off", broken_sources);
fn broken_sources() {
    let database = shared().database();
    let mut client = database.connect();
    let lines = patients(60_000);
    let file = File::new(&lines);
    client.batch_execute(&format!("select bulk.load('{}', 'Patient', options => '{{\"update\": true}}')", file.url())).unwrap();
    let (expected, history) = (rows(&mut client, "patient"), rows(&mut client, "patient_history"));
    let forms: [(&str, Vec<u8>); 3] =
        [("plain", lines.clone()), ("one member", gzip(&lines)), ("members", lines.chunks(300_000).flat_map(gzip).collect())];
    for (form, bytes) in forms {
        for ranges in [true, false] {
            client.batch_execute("drop table patient, patient_history").unwrap();
            // Several times on the way to its end; one that knows no ranges must come further each time.
            let most = if ranges && form != "one member" { bytes.len() / 4 } else { bytes.len() * 3 / 4 };
            let source = Slow::start(bytes.clone(), Manner { most, ranges, ..PLAIN });
            let request =
                json!({"id": format!("{form} {ranges}"), "update": true, "allowedRetryCount": 3, "inputs": patient_input(&source.url())});
            let id = request["id"].as_str().unwrap().to_owned();
            assert_eq!(call(&mut client, &request).0, 200);
            if !(ranges && form != "one member") {
                wait_until("it came to the break", || source.begun.lock().unwrap().len() > 1);
                source.behave(Manner { ranges, ..PLAIN });
            }
            assert_eq!(wait(&mut client, &id), "done", "{id}: {}", counts(&mut client, &id));
            assert_eq!(counts(&mut client, &id), "done 60000 60000 0 0", "{id}");
            assert_eq!((rows(&mut client, "patient"), rows(&mut client, "patient_history")), (expected.clone(), history.clone()), "{id}");
            let begun = source.begun.lock().unwrap().clone();
            assert!(begun.len() > 1, "{id}");
            if ranges && form != "one member" {
                assert!(begun[1..].iter().all(|from| *from > 0), "{id}: {begun:?}");
            }
        }
    }
    // One that never gets better fails, and says how; the rows so far are there, and force-resume goes on.
    client.batch_execute("drop table patient, patient_history").unwrap();
    let source = Slow::start(lines.clone(), Manner { most: lines.len() / 2, ranges: false, ..PLAIN });
    let request = json!({"id": "bad", "update": true, "allowedRetryCount": 1, "inputs": patient_input(&source.url())});
    assert_eq!(call(&mut client, &request).0, 200);
    assert_eq!(wait(&mut client, "bad"), "error");
    let message = value(&mut client, "select message from bulk.job where id = 'bad'");
    assert!(message.contains("truncated") && !message.contains("SECRET"), "{message}");
    source.behave(PLAIN);
    assert_eq!(act(&mut client, "bad", "force-resume").0, 200);
    assert_eq!(wait(&mut client, "bad"), "done");
    assert_eq!((rows(&mut client, "patient"), rows(&mut client, "patient_history")), (expected, history));
}

/// Starts an import whose source hangs once some of its rows are stored, and pauses it: how many rows.
fn paused(client: &mut Client, source: &Slow, id: &str) -> i64 {
    assert_eq!(call(client, &json!({"id": id, "inputs": patient_input(&source.url())})).0, 200);
    let stored = format!("select coalesce(stored, 0) from bulk.job where id = '{id}'");
    wait_until("some rows are stored", || value(client, &stored) != "0");
    assert_eq!(act(client, id, "pause").0, 200);
    assert_eq!(wait(client, id), "paused");
    let working = "select count(*) from pg_stat_activity where backend_type = 'bulk worker' and datname = current_database()";
    wait_until("no worker is left", || value(client, working) == "0");
    value(client, &stored).parse().unwrap()
}

test!("a source that changed in between is an error, not a mix", changed);
fn changed() {
    let database = shared().database();
    let mut client = database.connect();
    let lines = patients(100_000);
    for (form, bytes) in
        [("plain", lines.clone()), ("members", lines.chunks(500_000).flat_map(gzip).collect::<Vec<u8>>()), ("one", gzip(&lines))]
    {
        let hangs = Manner { most: bytes.len() - bytes.len() / 4, ..HANGS };
        for (how, other, etag) in [
            ("etag", bytes.clone(), "other"),
            ("length", bytes[..bytes.len() - 10].to_vec(), "first"),
            (
                "content",
                {
                    let mut other = bytes.clone();
                    other.iter_mut().for_each(|byte| *byte ^= u8::from(*byte == b'F'));
                    other
                },
                "first",
            ),
        ] {
            client.batch_execute("drop table if exists patient, patient_history").unwrap();
            let source = Slow::start(bytes.clone(), hangs);
            let id = format!("{form} {how}");
            let stored = paused(&mut client, &source, &id);
            assert!(stored > 0 && stored < 100_000);
            source.behave(PLAIN);
            source.replace(other, etag);
            assert_eq!(act(&mut client, &id, "resume").0, 200);
            assert_eq!(wait(&mut client, &id), "error", "{id}");
            let state = value(&mut client, &format!("select stored || ' ' || message from bulk.job where id = '{id}'"));
            if how != "content" || form == "plain" {
                assert_eq!(state, format!("{stored} source has changed since it was read first"), "{id}");
            } else {
                // gzip notices what the headers do not say.
                assert!(state.contains("source"), "{id}: {state}");
            }
            // As it was, it goes on.
            source.replace(bytes.clone(), "first");
            assert_eq!(act(&mut client, &id, "force-resume").0, 200);
            assert_eq!(wait(&mut client, &id), "done", "{id}");
            assert_eq!(counts(&mut client, &id), "done 100000 100000 0 0", "{id}");
        }
    }
}

test!("lines that an import rejects are told, each once", rejects);
fn rejects() {
    let database = shared().database();
    let mut client = database.connect();
    let line = |n: usize| match n % 100 {
        50 => "{\"id\":\n".to_owned(),
        _ => format!("{{\"id\":\"{n}\",\"name\":[{{\"family\":\"{}{n}\"}}]}}\n", "x".repeat(n % 300)),
    };
    let lines: String = (0..30_000).map(line).collect();
    client
        .batch_execute(
            "select bulk.create_resource_table('Patient'); alter table patient add check (resource#>>'{name,0,family}' !~ '77$')",
        )
        .unwrap();
    let source = Slow::start(lines.into_bytes(), Manner { most: 2_000_000, ..PLAIN });
    let request = json!({"id": "r", "max-errors": 1000, "allowedRetryCount": 5, "inputs": patient_input(&source.url())});
    assert_eq!(call(&mut client, &request).0, 200);
    assert_eq!(wait(&mut client, "r"), "done");
    assert_eq!(counts(&mut client, "r"), "done 30000 29400 0 600");
    assert_eq!(
        value(
            &mut client,
            "select string_agg(sqlstate || ' ' || n, ', ' order by sqlstate) from (select sqlstate, count(distinct line) n from bulk.load_error where load_id = 'r' group by 1) x"
        ),
        "22P02 300, 23514 300"
    );
    assert_eq!(value(&mut client, "select count(*) from bulk.load_error where load_id = 'r'"), "600");
    // By default the first of them ends the input, and is told.
    assert_eq!(call(&mut client, &json!({"id": "s", "inputs": patient_input(&source.url())})).0, 200);
    assert_eq!(wait(&mut client, "s"), "error");
    assert_eq!(value(&mut client, "select message from bulk.job where id = 's'"), "invalid JSON: input ended unexpectedly");
    assert_eq!(value(&mut client, "select min(line) || ' ' || min(sqlstate) from bulk.load_error where load_id = 's'"), "51 22P02");
    assert_eq!(counts(&mut client, "s"), "error 0 0");
}

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

test!("an import in one transaction is all or nothing", one_transaction);
fn one_transaction() {
    let database = shared().database();
    let mut client = database.connect();
    let good = File::new(&patients(5000));
    let hanging = Slow::start(patients(20_000), HANGS);
    let start = |client: &mut Client, id: &str, inputs: Value| {
        assert_eq!(call(client, &json!({"id": id, "mode": "transaction", "inputs": inputs})).0, 200)
    };
    let both = |url: &str| json!([{"resourceType": "Patient", "url": good.url()}, {"resourceType": "Goal", "url": url}]);
    start(&mut client, "bad", both("file:///nowhere"));
    assert_eq!(wait(&mut client, "bad"), "error");
    assert_eq!(value(&mut client, "to_regclass('patient') is null"), "true");
    assert_eq!(
        value(
            &mut client,
            "select string_agg(state || ': ' || message, ', ' order by resource_type) from bulk.job_file where job_id = 'bad'"
        ),
        "error: no such file, error: rolled back: another input failed"
    );
    // It stands in the way of nobody but by its rows; it cannot be paused, only aborted.
    start(&mut client, "long", both(&hanging.url()));
    let working = "select count(pid) from bulk.job_file where job_id = 'long'";
    wait_until("it is at work", || value(&mut client, working) == "2" && !hanging.begun.lock().unwrap().is_empty());
    assert_eq!(act(&mut client, "long", "pause").0, 406);
    let pid = value(&mut client, "select max(pid) from bulk.job_file where job_id = 'long'");
    client.batch_execute(&format!("select pg_terminate_backend({pid})")).unwrap();
    wait_until("it is interrupted", || value(&mut client, "select state from bulk.job where id = 'long'") == "interrupted");
    assert_eq!(act(&mut client, "long", "force-resume").0, 200);
    wait_until("it is at work", || value(&mut client, working) == "2" && hanging.begun.lock().unwrap().len() == 2);
    assert_eq!(act(&mut client, "long", "abort").0, 200);
    assert_eq!(wait(&mut client, "long"), "aborted");
    wait_until("nothing is left", || {
        value(&mut client, "select count(*) from pg_stat_activity where backend_type = 'bulk worker' and datname = current_database()")
            == "0"
    });
    assert_eq!(value(&mut client, "to_regclass('patient') is null"), "true");
    start(&mut client, "good", json!([{"resourceType": "Patient", "url": good.url()}, {"resourceType": "Patient", "url": good.url()}]));
    assert_eq!(wait(&mut client, "good"), "done");
    assert_eq!(counts(&mut client, "good"), "done 10000 10000 0 0");
    assert_eq!(value(&mut client, "select count(distinct xmin::text) from patient"), "1");
}

test!("whoever listens is told of every change of an import's state", told);
fn told() {
    let database = shared().database();
    let mut client = database.connect();
    let mut listener = listen(&database);
    let file = File::new(&patients(10));
    assert_eq!(call(&mut client, &json!({"id": "n", "inputs": patient_input(&file.url())})).0, 200);
    assert_eq!(wait(&mut client, "n"), "done");
    // Asked for, begun, done.
    let mut heard = Vec::new();
    wait_until("three were heard", || {
        listener.batch_execute("select 1").unwrap();
        let mut notifications = listener.notifications();
        while let Ok(Some(notification)) = postgres::fallible_iterator::FallibleIterator::next(&mut notifications.iter()) {
            heard.push((notification.channel().to_owned(), notification.payload().to_owned()));
        }
        heard.len() == 3
    });
    assert!(heard.iter().all(|said| *said == ("bulk_job".to_owned(), "n".to_owned())), "{heard:?}");
}

fn listen(database: &Database) -> Client {
    let mut listener = database.connect();
    listener.batch_execute("listen bulk_job").unwrap();
    listener
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

/// Patients of these ids as NDJSON.
fn of_ids(ids: impl Iterator<Item = u32>, family: &str) -> Vec<u8> {
    ids.map(|id| format!("{{\"id\":\"p{id}\",\"name\":[{{\"family\":\"{family}\"}}]}}\n")).collect::<String>().into_bytes()
}

test!("inputs that bring the same ids in any order do not end each other", overlapping);
fn overlapping() {
    const IDS: u32 = 30_000;
    let cluster = Cluster::start_with("max_worker_processes = 20\nbulk.max_workers = 8\ndeadlock_timeout = '2s'\n");
    let database = cluster.database();
    let mut client = database.connect();
    let orders: [Vec<u32>; 6] = [
        (0..IDS).collect(),
        (0..IDS).rev().collect(),
        (0..IDS).map(|n| n * 7919 % IDS).collect(),
        (0..IDS).rev().map(|n| n * 7919 % IDS).collect(),
        (IDS / 2..IDS).chain(0..IDS / 2).collect(),
        (0..IDS / 2).rev().chain((IDS / 2..IDS).rev()).collect(),
    ];
    let sources: Vec<Slow> =
        orders.iter().zip('A'..).map(|(ids, family)| Slow::start(of_ids(ids.iter().copied(), &family.to_string()), PLAIN)).collect();
    let inputs: Vec<Value> = sources.iter().map(|source| json!({"resourceType": "Patient", "url": source.url()})).collect();
    // By the fast path, with a history, with lines that may be rejected, and past it: a trigger runs others' code.
    for (round, (options, trigger)) in
        [(json!({}), false), (json!({"update": true}), false), (json!({"max-errors": 10}), false), (json!({}), true)]
            .into_iter()
            .enumerate()
    {
        client.batch_execute("drop table if exists patient, patient_history; select bulk.create_resource_table('Patient')").unwrap();
        if trigger {
            client
                .batch_execute(
                    "create or replace function nothing() returns trigger language plpgsql as 'begin return new; end';
                    create trigger t before insert or update on patient for each row execute function nothing()",
                )
                .unwrap();
        }
        // Two of them, each with workers of its own.
        let ids = [0, 1].map(|number| {
            let mut request = json!({"id": format!("o{round} {number}"), "inputs": inputs});
            request.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
            assert_eq!(call(&mut client, &request).0, 200);
            format!("o{round} {number}")
        });
        for id in ids {
            assert_eq!(
                wait(&mut client, &id),
                "done",
                "{}",
                value(&mut client, &format!("select message from bulk.job where id = '{id}'"))
            );
            let lines = 6 * IDS;
            assert_eq!(counts(&mut client, &id), format!("done {lines} {lines} 0 0"));
        }
        assert_eq!(value(&mut client, "select count(*) || ' ' || count(distinct txid) from patient"), format!("{IDS} {IDS}"));
    }
    // Whoever takes rows in another order meets it all the same: it says so, and goes on once they have ended.
    client.batch_execute("drop trigger t on patient").unwrap();
    let mut other = database.connect();
    other.batch_execute("set deadlock_timeout = '60s'; begin; update patient set txid = txid where id = 'p9'").unwrap();
    let waiting = "select count(*) from pg_stat_activity where backend_type = 'bulk worker' and wait_event_type = 'Lock'";
    let request = json!({"id": "met", "inputs": [{"resourceType": "Patient", "url": sources[0].url()}]});
    assert_eq!(call(&mut client, &request).0, 200);
    wait_until("the import waits for the other", || value(&mut client, waiting) == "1");
    other.batch_execute("update patient set txid = txid where id = 'p0'").unwrap();
    let message = "select message from bulk.job_file where job_id = 'met'";
    wait_until("it says for whom it waits", || value(&mut client, message).contains("blocked by process"));
    other.batch_execute("commit").unwrap();
    assert_eq!(wait(&mut client, "met"), "done");
    assert_eq!(counts(&mut client, "met"), format!("done {IDS} {IDS} 0 0"));
}

test!("twenty sessions of five roles at once on the same ids all end", together);
fn together() {
    let cluster = Cluster::start_with("max_worker_processes = 20\nbulk.max_workers = 8\n");
    let database = cluster.database();
    let mut client = database.connect();
    client.batch_execute("select bulk.create_resource_table('Patient')").unwrap();
    let source = Slow::start(patients(8000), PLAIN);
    let name = &database.name;
    // Five roles, two of which cannot log in; each loads the same ids four times at once.
    for role in 0..5 {
        let login = if role < 3 { "login" } else { "nologin" };
        client
            .batch_execute(&format!(
                "create role r{role}_{name} {login}; grant bulk_remote to r{role}_{name};
                grant select, insert, update on patient, patient_history to r{role}_{name}; grant usage on sequence transaction_id_seq to r{role}_{name}"
            ))
            .unwrap();
    }
    let sessions: Vec<std::thread::JoinHandle<(String, Client)>> = (0..20)
        .map(|number| {
            let (mut client, role, url) = (database.connect(), format!("r{}_{name}", number % 5), source.url());
            std::thread::spawn(move || {
                client.batch_execute(&format!("set role {role}")).unwrap();
                let request = json!({"id": format!("s{number}"), "update": number % 2 == 0, "headers": {"X-Secret": "SECRET"}, "inputs": [
                    {"resourceType": "Patient", "url": url}, {"resourceType": "Patient", "url": url}]});
                assert_eq!(call(&mut client, &request).0, 200);
                (format!("s{number}"), client)
            })
        })
        .collect();
    for session in sessions {
        let (id, mut own) = session.join().unwrap();
        assert_eq!(wait(&mut own, &id), "done", "{}", value(&mut client, &format!("select message from bulk.job where id = '{id}'")));
        assert_eq!(counts(&mut own, &id), "done 16000 16000 0 0");
        // Its own four, and nobody's secrets.
        assert_eq!(value(&mut own, "select count(*) from bulk.job"), "4");
        assert_eq!(failure(&mut own, "select * from bulk_internal.job_secret").code, "42501");
    }
    let distinct = (8000 - 8000 / 7).to_string();
    assert_eq!(value(&mut client, "select count(*) || ' ' || count(distinct txid) from patient"), format!("{distinct} {distinct}"));
    assert_eq!(value(&mut client, "select count(*) from bulk_internal.job_secret"), "0");
    wait_until("no worker is left", || {
        value(&mut client, "select count(*) from pg_stat_activity where backend_type = 'bulk worker'") == "0"
    });
}
