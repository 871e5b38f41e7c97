//! Imports that are killed, ended or cut off at random moments: what is there in the end is what an undisturbed one leaves.

use crate::support::buckets;
use crate::support::cluster::{Cluster, data};
use crate::support::faults::{FAULTS, happen, next, rounds};
use crate::support::imports::{PLAIN, act, call, counts, patient_input, patients, rows, wait};
use crate::support::proxy::{Proxy, Trouble};
use crate::support::servers::S3Server;
use crate::support::source::{File, Manner, Slow, gzip};
use crate::support::statement::{value, wait_until};
use crate::support::trial::{SERVER, WRITING, parts, test};

use flate2::read::GzDecoder;
use postgres::Client;
use serde_json::{Value, json};
use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

parts!(SERVER, WRITING);

test!("an import that is killed or ended at any moment ends with the rows of one that was not", killed);
fn killed() {
    let cluster = Cluster::start();
    let database = cluster.database();
    let mut client = database.connect();
    let lines = patients(60_000);
    let file = File::new(&lines);
    client.batch_execute(&format!("select bulk.load('{}', 'Patient', options => '{{\"update\": true}}')", file.url())).unwrap();
    let (expected, history) = (rows(&mut client, "patient"), rows(&mut client, "patient_history"));
    client.batch_execute("truncate patient_history").unwrap();
    let none = rows(&mut client, "patient_history");
    let mut state = 7;
    for round in 0..rounds(8) {
        client.batch_execute("drop table patient, patient_history").unwrap();
        let bytes = match next(&mut state) % 3 {
            0 => lines.clone(),
            1 => gzip(&lines),
            _ => lines.chunks(200_000).flat_map(gzip).collect(),
        };
        let pause = Duration::from_millis(if bytes.len() == lines.len() { 15 } else { 100 });
        let source = Slow::start(bytes, Manner { pause, ..PLAIN });
        let id = format!("round {round}");
        // Without history plain sources are imported in ranges.
        let history = if round % 2 == 0 { &history } else { &none };
        client.batch_execute("set bulk.range_size = '512kB'").unwrap();
        assert_eq!(call(&mut client, &json!({"id": id, "update": round % 2 == 0, "inputs": patient_input(&source.url())})).0, 200);
        let pid = format!("select coalesce(max(pid), 0) from bulk.job_file where job_id = '{id}'");
        wait_until("it is at work", || value(&mut client, &pid) != "0");
        std::thread::sleep(Duration::from_millis(next(&mut state) % 1500));
        let pid = value(&mut client, &pid);
        if pid != "0" {
            happen(FAULTS[next(&mut state) as usize % FAULTS.len()], &pid, &database, &mut client);
        }
        let standing = format!("select state from bulk.job where id = '{id}'");
        wait_until("it is at work no more", || matches!(value(&mut client, &standing).as_str(), "interrupted" | "done"));
        if value(&mut client, &standing) == "interrupted" {
            assert_eq!(act(&mut client, &id, "force-resume").0, 200);
        }
        source.behave(PLAIN);
        assert_eq!(wait(&mut client, &id), "done", "{id}");
        assert_eq!(counts(&mut client, &id), "done 60000 60000 0 0", "{id}");
        assert_eq!((rows(&mut client, "patient"), rows(&mut client, "patient_history")), (expected.clone(), history.clone()), "{id}");
    }
}

test!("a load of a bucket that is killed or ended at any moment loads every file once", whole_bucket);
fn whole_bucket() {
    let cluster = Cluster::start();
    let database = cluster.database();
    let mut client = database.connect();
    let server = S3Server::start(&["bucket"]).expect("make test provides it");
    let proxy = Proxy::start(server.server.port);
    for n in 0..16_u32 {
        let content = buckets::lines(n * 10_000, n * 10_000 + 500 * n + 100);
        let (key, content) =
            if n % 2 == 0 { (format!("{n}/Patient.ndjson"), content) } else { (format!("Patient-{n}.ndjson.gz"), gzip(&content)) };
        buckets::put(&server, &key, &content);
    }
    client.batch_execute("select bulk.create_resource_table('Patient'); create index patient_ts on patient (ts); create index patient_resource on patient using gin (resource)").unwrap();
    let indexes = "select string_agg(pg_get_indexdef(indexrelid), ' ' order by indexrelid::regclass::text) from pg_index where indrelid = 'patient'::regclass";
    let before = value(&mut client, indexes);
    let undisturbed = buckets::load(&mut client, &proxy.host(), json!({"disable-idx?": true}));
    buckets::done(&mut client, &undisturbed);
    let expected = rows(&mut client, "patient");
    let mut state = 3;
    let mut interrupted = 0;
    for round in 0..rounds(6) {
        client.batch_execute("truncate patient, patient_history; delete from bulk.loader_file").unwrap();
        proxy.trouble(Trouble::Slow(Duration::from_millis(3 + next(&mut state) % 20)), 30);
        let flags = [json!({"disable-idx?": true}), json!({"drop-primary-key?": true}), json!({"upsert?": true}), json!({"thread-num": 2})];
        let flags = &flags[next(&mut state) as usize % flags.len()];
        let answer = buckets::load(&mut client, &proxy.host(), flags.clone());
        let id = answer["id"].as_str().unwrap().to_owned();
        let pid = format!("select coalesce(max(pid), 0) from bulk.job_file where job_id = '{id}'");
        wait_until("it is at work", || value(&mut client, &pid) != "0");
        std::thread::sleep(Duration::from_millis(next(&mut state) % 1200));
        let pid = value(&mut client, &pid);
        if pid != "0" {
            happen(FAULTS[next(&mut state) as usize % FAULTS.len()], &pid, &database, &mut client);
        }
        let standing = format!("select state from bulk.job where id = '{id}'");
        wait_until("it goes on, or is at work no more", || value(&mut client, &standing) != "waiting");
        proxy.trouble(Trouble::Refuse, 0);
        if value(&mut client, &format!("bulk.wait('{id}', '60 s')")) == "interrupted" {
            interrupted += 1;
            assert_eq!(buckets::status(&mut client, "s3://bucket")["state"], "interrupted", "{round}");
            let again = buckets::load(&mut client, &proxy.host(), flags.clone());
            assert_eq!(again["new-files-count"], 0);
            buckets::done(&mut client, &again);
        }
        let finished = buckets::status(&mut client, "s3://bucket");
        assert_eq!(
            finished,
            json!({"state": "completed", "progress": {"total": 16, "pending": 0, "done": 16, "error": 0}}),
            "{round} {flags}"
        );
        assert_eq!(rows(&mut client, "patient"), expected, "{round} {flags}");
        assert_eq!(value(&mut client, indexes), before, "{round} {flags}");
        assert_eq!(
            value(&mut client, "select sum(loaded) = (select count(*) from patient) from bulk.loader_file"),
            "true",
            "{round} {flags}"
        );
    }
    println!("{interrupted} rounds were interrupted");
}

/// A type's lines: as one gzip, plain, as a gzip of many members.
struct Real {
    name: String,
    forms: [Vec<u8>; 3],
}

fn real_data() -> Vec<Real> {
    let read = |path: &Path| {
        let name = path.file_name()?.to_str()?.strip_suffix(".ndjson.gz")?.to_owned();
        let gz = fs::read(path).unwrap();
        let mut lines = Vec::new();
        GzDecoder::new(gz.as_slice()).read_to_end(&mut lines).unwrap();
        let members = lines.chunks(1 << 20).flat_map(gzip).collect();
        Some(Real { name, forms: [gz, lines, members] })
    };
    let mut files: Vec<Real> = fs::read_dir(data()).unwrap().filter_map(|entry| read(&entry.unwrap().path())).collect();
    files.sort_by(|a, b| a.name.cmp(&b.name));
    files
}

/// What is in all tables, without what every import has of its own, and whether a version stands twice.
fn contents(client: &mut Client, files: &[Real]) -> Vec<String> {
    files
        .iter()
        .map(|Real { name, .. }| {
            let table = name.to_ascii_lowercase();
            let twice = format!("select count(*) from (select id, txid from (table {table} union all table {table}_history) v group by 1, 2 having count(*) > 1) d");
            assert_eq!(value(client, &twice), "0", "{name}");
            format!("{} {}", rows(client, &table), rows(client, &format!("{table}_history")))
        })
        .collect()
}

test!("an import of real data that is killed, ended or cut off at any moment ends as an undisturbed one", real, Data);
fn real() {
    let cluster = Cluster::start();
    let database = cluster.database();
    let mut client = database.connect();
    let files = real_data();
    let tables: Vec<String> =
        files.iter().flat_map(|Real { name, .. }| [name.to_ascii_lowercase(), format!("{}_history", name.to_ascii_lowercase())]).collect();
    let drop = format!("drop table if exists {}", tables.join(", "));
    let import = |client: &mut Client, id: &str, sources: &[Slow], update: bool| {
        let inputs: Vec<Value> =
            files.iter().zip(sources).map(|(Real { name, .. }, source)| json!({"resourceType": name, "url": source.url()})).collect();
        let request = json!({"id": id, "update": update, "allowedRetryCount": 20, "inputs": inputs});
        let row = client.query_one("select status from bulk.import($1::text::jsonb, true)", &[&request.to_string()]).unwrap();
        assert_eq!(row.get::<_, i32>(0), 200);
    };
    let sources: Vec<Slow> = files.iter().map(|Real { forms, .. }| Slow::start(forms[0].clone(), PLAIN)).collect();
    import(&mut client, "undisturbed", &sources, false);
    assert_eq!(
        wait(&mut client, "undisturbed"),
        "done",
        "{}",
        value(&mut client, "select string_agg(source || ' ' || message, ', ') from bulk.job_file")
    );
    let (expected, counted) = (contents(&mut client, &files), counts(&mut client, "undisturbed"));
    let began = std::time::Instant::now();
    let mut state = 11;
    let mut happened = std::collections::BTreeMap::new();
    for round in 0..rounds(3) {
        client.batch_execute(&drop).unwrap();
        client.batch_execute("set bulk.range_size = '8MB'").unwrap();
        let form = next(&mut state) as usize % 3;
        // The source is cut off too, again and again, until it is back.
        let cut = next(&mut state).is_multiple_of(2);
        let sources: Vec<Slow> = files
            .iter()
            .map(|Real { forms, .. }| {
                let bytes = forms[form].clone();
                let most = if cut { bytes.len() / (1 + next(&mut state) as usize % 5) } else { usize::MAX };
                let pause = Duration::from_millis(if form == 1 { 2 } else { 15 });
                Slow::start(bytes, Manner { most, pause, ..PLAIN })
            })
            .collect();
        let id = format!("real {round}");
        import(&mut client, &id, &sources, next(&mut state).is_multiple_of(3));
        let pid = format!("select coalesce(max(pid), 0) from bulk.job_file where job_id = '{id}'");
        wait_until("it is at work", || value(&mut client, &pid) != "0");
        std::thread::sleep(Duration::from_millis(next(&mut state) % 4000));
        let pid = value(&mut client, &pid);
        if pid != "0" {
            let fault = FAULTS[next(&mut state) as usize % FAULTS.len()];
            let before = counts(&mut client, &id);
            happen(fault, &pid, &database, &mut client);
            println!("round {round}, form {form}, cut {cut}: {fault:?} at {before}");
            *happened.entry(format!("{fault:?}")).or_insert(0) += 1;
        }
        let standing = format!("select state from bulk.job where id = '{id}'");
        let states = ["interrupted", "in-progress", "done", "error"];
        wait_until("its worker is gone, or another is there", || states.contains(&value(&mut client, &standing).as_str()));
        sources.iter().for_each(|source| source.behave(PLAIN));
        let mut last = wait(&mut client, &id);
        for _ in 0..3 {
            if last == "done" {
                break;
            }
            assert!(matches!(last.as_str(), "interrupted" | "error"), "{last}");
            assert_eq!(act(&mut client, &id, "force-resume").0, 200);
            last = wait(&mut client, &id);
        }
        assert_eq!(last, "done", "{id}: {}", value(&mut client, &format!("select message from bulk.job where id = '{id}'")));
        assert_eq!(counts(&mut client, &id), counted, "{id}");
        assert_eq!(contents(&mut client, &files), expected, "{id}");
    }
    println!("{happened:?} in {:?}", began.elapsed());
}
