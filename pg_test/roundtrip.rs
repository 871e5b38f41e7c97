//! Real resources go in as FHIR and come out equal, and what is stored equals the server's own jsonb byte for byte.

use crate::cluster::{Database, cache, data, shared, value};
use crate::source::Nginx;
use crate::test;
use libtest_mimic::Trial;
use postgres::Client;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

pub fn tests() -> Vec<Trial> {
    let without_data = !data().is_dir();
    vec![
        test("every official example comes out of a mixed load as it went in", examples),
        test("every synthetic resource comes out of a typed load as it went in, in bounded memory", synthetic)
            .with_ignored_flag(without_data),
        test("resources pass through tables that hold FHIR as well", fhir_tables),
    ]
}

/// Takes from a resource what the server owns. What is left is compared as text: jsonb's `=` would call 1.10 and 1.1 equal.
const NORMAL: &str = "create function pg_temp.normal(j jsonb) returns text language sql immutable as $$
    select (case when m = '{}' then j - 'meta' else jsonb_set(j, '{meta}', m) end)::text from (
        select case when e = '[]' then m - 'extension' else jsonb_set(m, '{extension}', e) end as m from (
            select coalesce(j->'meta', '{}') - 'versionId' - 'lastUpdated' as m,
                coalesce((select jsonb_agg(x) from jsonb_array_elements(j#>'{meta,extension}') x where x->>'url' <> 'ex:createdAt'), '[]') as e) a) b $$";

/// Reads the lines of a gzip into the table `source`, by psql and the server's own JSON parser.
pub fn copy_source(database: &Database, gz: &Path) {
    let mut zcat = Command::new("zcat").arg(gz).stdout(Stdio::piped()).spawn().expect("zcat runs");
    let lines = zcat.stdout.take().unwrap();
    let copy = "\\copy source (j) from pstdin with (format csv, quote e'\\x01', delimiter e'\\x02')";
    let output = database.psql().args(["-c", copy]).stdin(lines).output().expect("psql runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(zcat.wait().unwrap().success());
}

/// Compares the tables `source` and `dumped` and returns the resources compared.
fn compare(client: &mut Client) -> i64 {
    client.batch_execute(NORMAL).unwrap();
    let joined = "source s full join dumped d on s.j->>'resourceType' = d.j->>'resourceType' and s.j->>'id' = d.j->>'id'";
    let different = client
        .query(&format!("select coalesce(s.j, d.j)->>'resourceType', coalesce(s.j, d.j)->>'id' from {joined} where pg_temp.normal(s.j) is distinct from pg_temp.normal(d.j) limit 5"), &[])
        .unwrap();
    let names: Vec<String> = different.iter().map(|row| format!("{}/{}", row.get::<_, String>(0), row.get::<_, String>(1))).collect();
    assert!(names.is_empty(), "came out different: {names:?}");
    let count: i64 = client.query_one(&format!("select count(*) from {joined}"), &[]).unwrap().get(0);
    assert!(count > 0, "nothing was compared");
    count
}

fn dump_all(client: &mut Client) {
    client
        .batch_execute(
            "create unlogged table dumped (j jsonb);
             do $$ declare t text; begin
                 for t in select distinct j->>'resourceType' from source loop
                     execute format('insert into dumped select l::jsonb from (select bulk.dump(%L, fhir => true) as l) x', t);
                 end loop;
             end $$",
        )
        .unwrap();
}

/// Rows whose stored bytes differ from those that the server's own parser makes.
fn check_bytes(client: &mut Client) {
    client
        .batch_execute(
            "do $$ declare t text; n bigint; begin
                 for t in select distinct lower(j->>'resourceType') from source loop
                     execute format('select count(*) from %I where not record_image_eq(row(resource), row(resource::text::jsonb))', t) into n;
                     if n > 0 then raise exception '% rows of % are not what jsonb_in makes', n, t; end if;
                 end loop;
             end $$",
        )
        .unwrap();
}

fn examples() {
    let database = shared().database();
    let mut client = database.connect();
    let directory = cache().join("examples");
    client.batch_execute("create unlogged table source (j jsonb)").unwrap();
    copy_source(&database, &directory.join("all.ndjson.gz"));
    let nginx = Nginx::start(&directory, "");
    let counts = value(&mut client, &format!("bulk.load('{}', fhir => true)", nginx.url("all.ndjson.gz")));
    let expected =
        value(&mut client, "select jsonb_object_agg(t, n) from (select j->>'resourceType' as t, count(*) as n from source group by 1) x");
    assert_eq!(counts, expected);
    dump_all(&mut client);
    check_bytes(&mut client);
    assert_eq!(compare(&mut client), 5305);
}

fn fhir_tables() {
    let database = shared().database();
    let mut client = database.connect();
    let directory = cache().join("examples");
    client.batch_execute("set bulk.resource_format = fhir; create unlogged table source (j jsonb)").unwrap();
    copy_source(&database, &directory.join("all.ndjson.gz"));
    client.batch_execute(&format!("select bulk.load('file://{}/all.ndjson.gz', fhir => true)", directory.display())).unwrap();
    let stored = value(&mut client, "select resource ? 'valueQuantity' from observation where id = 'f001'");
    assert_eq!(stored, "true");
    dump_all(&mut client);
    assert_eq!(compare(&mut client), 5305);
    let line = value(
        &mut client,
        "select l::jsonb#>>'{value,Quantity,unit}' from (select bulk.dump('Observation') l) x where l::jsonb->>'id' = 'f001'",
    );
    assert_eq!(line, "mmol/l");
    // A resource in Aidbox format lands as FHIR.
    client
        .batch_execute(
            "truncate dumped; insert into dumped select l::jsonb from (select bulk.dump('Observation') l) x; truncate observation",
        )
        .unwrap();
    let file =
        crate::source::File::new(b"{\"id\":\"a\",\"value\":{\"string\":\"x\"},\"subject\":{\"resourceType\":\"Patient\",\"id\":\"1\"}}\n");
    client.batch_execute(&format!("select bulk.load('{}', 'Observation')", file.url())).unwrap();
    assert_eq!(value(&mut client, "select resource from observation"), r#"{"subject": {"reference": "Patient/1"}, "valueString": "x"}"#);
}

/// Highest RssAnon of a process, sampled until dropped.
pub struct Peak {
    stop: Arc<AtomicBool>,
    peak: Arc<AtomicU64>,
}

impl Peak {
    pub fn watch(pid: i32) -> Peak {
        let (stop, peak) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopping, highest) = (Arc::clone(&stop), Arc::clone(&peak));
        thread::spawn(move || {
            while !stopping.load(Ordering::Relaxed) {
                highest.fetch_max(rss_anon(pid), Ordering::Relaxed);
                thread::sleep(Duration::from_millis(5));
            }
        });
        Peak { stop, peak }
    }

    pub fn bytes(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }
}

impl Drop for Peak {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

pub fn rss_anon(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1024
}

fn synthetic() {
    let database = shared().database();
    let mut client = database.connect();
    client.batch_execute("create unlogged table source (j jsonb)").unwrap();
    let mut types: Vec<String> = std::fs::read_dir(data())
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str().unwrap().strip_suffix(".ndjson.gz").map(str::to_owned))
        .collect();
    types.sort();
    for name in &types {
        copy_source(&database, &data().join(format!("{name}.ndjson.gz")));
    }
    let longest: i32 = client.query_one("select max(length(j::text)) from source", &[]).unwrap().get(0);
    let nginx = Nginx::start(&data(), "");
    let pid: i32 = client.query_one("select pg_backend_pid()", &[]).unwrap().get(0);
    let peak = Peak::watch(pid);
    for name in &types {
        let answer = value(&mut client, &format!("bulk.load('{}', '{name}', fhir => true)", nginx.url(&format!("{name}.ndjson.gz"))));
        let expected =
            value(&mut client, &format!("select jsonb_build_object('total', count(*)) from source where j->>'resourceType' = '{name}'"));
        assert_eq!(answer, expected, "{name}");
    }
    let bound = 128 * 1024 * 1024 + 6 * u64::try_from(longest).unwrap();
    println!("peak RssAnon of the load: {} MiB, bound {} MiB", peak.bytes() >> 20, bound >> 20);
    assert!(peak.bytes() > 0 && peak.bytes() <= bound, "{} bytes, {bound} allowed", peak.bytes());
    drop(peak);
    dump_all(&mut client);
    check_bytes(&mut client);
    assert_eq!(compare(&mut client), 189_111);
}
