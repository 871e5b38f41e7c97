//! Real resources go in as FHIR and come out equal, and what is stored equals the server's own jsonb byte for byte.

use crate::support::cluster::{cache, data, shared};
use crate::support::memory_peak::Peak;
use crate::support::real_data::copy_source;
use crate::support::source::Nginx;
use crate::support::statement::value;
use crate::support::trial::{WRITING, parts, test};
use postgres::Client;

parts!(WRITING);

/// Takes from a resource what the server owns. What is left is compared as text: jsonb's `=` would call 1.10 and 1.1 equal.
const NORMAL: &str = "create function pg_temp.normal(j jsonb) returns text language sql immutable as $$
    select (case when m = '{}' then j - 'meta' else jsonb_set(j, '{meta}', m) end)::text from (
        select case when e = '[]' then m - 'extension' else jsonb_set(m, '{extension}', e) end as m from (
            select coalesce(j->'meta', '{}') - 'versionId' - 'lastUpdated' as m,
                coalesce((select jsonb_agg(x) from jsonb_array_elements(j#>'{meta,extension}') x where x->>'url' <> 'ex:createdAt'), '[]') as e) a) b $$";

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

test!("every official example comes out of a mixed load as it went in", examples);
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

test!("resources pass through tables that hold FHIR as well", fhir_tables);
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
    let file = crate::support::source::File::new(
        b"{\"id\":\"a\",\"value\":{\"string\":\"x\"},\"subject\":{\"resourceType\":\"Patient\",\"id\":\"1\"}}\n",
    );
    client.batch_execute(&format!("select bulk.load('{}', 'Observation')", file.url())).unwrap();
    assert_eq!(value(&mut client, "select resource from observation"), r#"{"subject": {"reference": "Patient/1"}, "valueString": "x"}"#);
}

test!("every synthetic resource comes out of a typed load as it went in, in bounded memory", synthetic, Data);
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
