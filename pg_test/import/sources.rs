//! The rows of an import are those of a load: in ranges, of known ids, of sources that break off or change.

use crate::support::cluster::shared;
use crate::support::faults::next;
use crate::support::imports::{HANGS, PLAIN, act, call, counts, patient_input, patients, rows, status_of, wait};
use crate::support::source::{File, Manner, Slow, gzip};
use crate::support::statement::{value, wait_until};
use crate::support::trial::{SERVER, WRITING, parts, test};
use postgres::Client;
use serde_json::{Value, json};
use std::fmt::Write;
use std::time::Duration;

parts!(SERVER, WRITING);

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
    assert_eq!(value(&mut client, "select message from bulk.job where id = 'bad'"), "no such file");
    // A line that is wrong is told, of whichever input it is, and is not stored.
    let wrong = File::new(b"{\"id\": \"g1\"}\n{\"id\": \n");
    start(&mut client, "line", both(&wrong.url()));
    assert_eq!(wait(&mut client, "line"), "error");
    assert_eq!(value(&mut client, "select message from bulk.job where id = 'line'"), "invalid JSON: input ended unexpectedly");
    assert_eq!(
        value(
            &mut client,
            &format!(
                "select string_agg(concat_ws(' ', line, sqlstate, source = '{}'), ', ') from bulk.load_error where load_id = 'line'",
                wrong.url()
            )
        ),
        "2 22P02 t"
    );
    // What fails at the commit is no one input's.
    client
        .batch_execute(
            "select bulk.create_resource_table('Patient'); create function late() returns trigger language plpgsql as \
             'begin raise exception ''too late''; end'; \
             create constraint trigger late after insert on patient deferrable initially deferred for each row execute function late()",
        )
        .unwrap();
    start(&mut client, "late", json!([{"resourceType": "Patient", "url": good.url()}, {"resourceType": "Goal", "url": good.url()}]));
    assert_eq!(wait(&mut client, "late"), "error");
    assert_eq!(value(&mut client, "select message from bulk.job where id = 'late'"), "too late");
    assert_eq!(value(&mut client, "select string_agg(distinct message, ', ') from bulk.job_file where job_id = 'late'"), "too late");
    client.batch_execute("drop table patient, patient_history; drop function late").unwrap();
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
