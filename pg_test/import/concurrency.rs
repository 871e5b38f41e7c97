//! Writers that bring the same ids at once wait for each other, and all end.

use crate::support::cluster::Cluster;
use crate::support::imports::{PLAIN, call, counts, patients, wait};
use crate::support::source::Slow;
use crate::support::statement::{failure, value, wait_until};
use crate::support::trial::{SERVER, WRITING, parts, test};
use postgres::Client;
use serde_json::{Value, json};

parts!(SERVER, WRITING);

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
