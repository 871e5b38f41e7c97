//! What a caller asks of an import, what it answers in every state, and whom it tells.

use crate::support::cluster::{Database, checked, server_directory, shared};
use crate::support::imports::{HANGS, PLAIN, act, call, counts, patient_input, patients, status_of, wait};
use crate::support::source::{File, Slow, gzip};
use crate::support::statement::{failure, value, wait_until};
use crate::support::trial::{SERVER, parts, test};
use postgres::Client;
use serde_json::{Value, json};
use std::fs;

parts!(SERVER);

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
    client.batch_execute("set bulk.base_url = e'https://box.example.org\\r\\nset-cookie: a=b'").unwrap();
    assert_eq!(call(&mut client, &json!({"inputs": inputs})).0, 400);
    client.batch_execute("set bulk.base_url = 'https://box.example.org/'").unwrap();
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
