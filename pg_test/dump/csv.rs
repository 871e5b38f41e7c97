//! What `bulk.dump_csv` gives, beside what the server itself finds in the same resources.

use crate::support::cluster::{cache, data, shared};
use crate::support::statement::{failure, value};
use crate::support::trial::{SERVER, parts, test};
use flate2::read::MultiGzDecoder;
use postgres::Client;
use std::collections::{BTreeMap, HashMap};
use std::io::Read;

parts!(SERVER);

fn lines(client: &mut Client, resource_type: &str) -> Vec<String> {
    client.query("select bulk.dump_csv($1)", &[&resource_type]).unwrap().iter().map(|row| row.get(0)).collect()
}

test!("the documented tables come out byte for byte", documented);
fn documented() {
    let database = shared().database();
    let mut client = database.connect();
    client
        .batch_execute(
            r#"select bulk.create_resource_table('Patient'), bulk.create_resource_table('Appointment');
            insert into patient (id, txid, status, resource) values ('pt-1', 481, 'created', '{"name": [{"given": ["Alice"]}]}'), ('pt-2', 482, 'created', '{"name": [{"given": ["Bob"]}]}'),
                ('pt-3', 483, 'created', '{"name": [{"given": ["Charles"]}], "citizenship": [{"code": {"text": "ru"}}]}'), ('gone', 484, 'deleted', '{"x": 1}');
            insert into appointment (id, txid, status, resource) values ('ap-1', 484, 'created', '{"status": "fulfilled", "participant": [{"actor": {"id": "pt-1", "resourceType": "Patient"}, "status": "accepted"}]}'),
                ('ap-2', 485, 'created', '{"status": "booked", "participant": [{"actor": {"id": "pt-1", "resourceType": "Patient"}, "status": "accepted"}]}'),
                ('ap-3', 486, 'created', '{"status": "fulfilled", "participant": [{"actor": {"id": "pt-2", "resourceType": "Patient"}, "status": "accepted"}]}')"#,
        )
        .unwrap();
    let patients =
        "citizenship.0.code.text,id,name.0.given.0,resourceType\n,pt-1,Alice,Patient\n,pt-2,Bob,Patient\nru,pt-3,Charles,Patient\n";
    let appointments = "id,participant.0.actor.id,participant.0.actor.resourceType,participant.0.status,resourceType,status\n\
        ap-1,pt-1,Patient,accepted,Appointment,fulfilled\nap-2,pt-1,Patient,accepted,Appointment,booked\nap-3,pt-2,Patient,accepted,Appointment,fulfilled\n";
    for (name, expected) in [("Patient", patients), ("appointment", appointments)] {
        assert_eq!(lines(&mut client, name).join("\n") + "\n", expected);
        for gzip in [false, true] {
            let chunks = client.query("select bulk.dump_csv_bytes($1, $2)", &[&name, &gzip]).unwrap();
            let mut body = chunks.iter().map(|row| row.get::<_, Vec<u8>>(0)).collect::<Vec<_>>().concat();
            if gzip {
                let mut plain = Vec::new();
                MultiGzDecoder::new(body.as_slice()).read_to_end(&mut plain).unwrap();
                body = plain;
            }
            assert_eq!(String::from_utf8(body).unwrap(), expected);
        }
    }
}

/// The server's own account of a table's values: path and text, by id.
const LEAVES: &str = "with recursive tree(id, path, value) as (
        select id, '', resource from TABLE
        union all
        select id, case path when '' then '' else path || '.' end || step, child
        from tree, lateral (select key as step, value as child from jsonb_each(case jsonb_typeof(tree.value) when 'object' then tree.value end)
            union all select (ordinality - 1)::text, value from jsonb_array_elements(case jsonb_typeof(tree.value) when 'array' then tree.value end) with ordinality) steps)
    select id, path, value #>> '{}' from tree where path <> '' and jsonb_typeof(value) <> 'null' and (value in ('{}', '[]') or jsonb_typeof(value) not in ('object', 'array'))";

/// A table's CSV as its reader has it: values by path, by id.
fn table(client: &mut Client, resource_type: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let chunks = client.query("select bulk.dump_csv_bytes($1)", &[&resource_type]).unwrap();
    let body = chunks.iter().map(|row| row.get::<_, Vec<u8>>(0)).collect::<Vec<_>>().concat();
    let mut reader = csv::Reader::from_reader(body.as_slice());
    let header = reader.headers().unwrap().clone();
    let mut sorted: Vec<&str> = header.iter().collect();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted.len(), header.len(), "{resource_type}: a column twice");
    let mut used = vec![false; header.len()];
    let rows = reader
        .records()
        .map(|record| {
            let record = record.unwrap();
            let mut values = BTreeMap::new();
            for (index, field) in record.iter().enumerate().filter(|(_, field)| !field.is_empty()) {
                used[index] = true;
                values.insert(header[index].to_owned(), field.to_owned());
            }
            (values["id"].clone(), values)
        })
        .collect();
    assert!(used.iter().all(|&used| used), "{resource_type}: a column without a value");
    rows
}

test!("every value of every resource stands in the column of its path", complete);
fn complete() {
    let database = shared().database();
    let mut client = database.connect();
    client
        .batch_execute(&format!("select bulk.load('file://{}/all.ndjson.gz', fhir => true)", cache().join("examples").display()))
        .unwrap();
    client
        .batch_execute(&format!("select bulk.load('file://{}/Encounter.ndjson.gz', 'Encounter', fhir => true)", data().display()))
        .unwrap();
    let mut checked = 0;
    for name in ["Patient", "Encounter", "Questionnaire", "Observation", "CodeSystem", "Claim", "Group", "Procedure"] {
        let found = table(&mut client, name);
        let mut expected: HashMap<String, BTreeMap<String, String>> = HashMap::new();
        for row in client.query(&LEAVES.replace("TABLE", &format!("\"{}\"", name.to_lowercase())), &[]).unwrap() {
            let text: String = row.get(2);
            // A field cannot tell an empty text from none once a reader has taken the quotes.
            if !text.is_empty() {
                expected.entry(row.get(0)).or_default().insert(row.get(1), text);
            }
        }
        for row in client.query(&format!("select id, resource_type from \"{}\"", name.to_lowercase()), &[]).unwrap() {
            let values = expected.entry(row.get(0)).or_default();
            values.insert("id".to_owned(), row.get(0));
            values.insert("resourceType".to_owned(), row.get(1));
        }
        assert_eq!(found.len(), expected.len(), "{name}");
        for (id, values) in &expected {
            assert_eq!(&found[id], values, "{name} {id}");
        }
        checked += found.len();
    }
    assert!(checked > 15_000, "{checked}");
    // Among the bundles there is one of 29 MB: as columns it would help nobody.
    assert_eq!(failure(&mut client, "select bulk.dump_csv('Bundle')").code, "54000");
}

test!("odd resources and names are quoted, and nothing of theirs is lost", odd);
fn odd() {
    let database = shared().database();
    let mut client = database.connect();
    client
        .batch_execute(
            r#"select bulk.create_resource_table('Basic');
            insert into basic (id, txid, status, resource) values
                ('1', 1, 'created', '{}'), ('2', 2, 'created', '{"a": null, "e": "", "o": {}, "l": [], "b": false, "n": 1.10}'),
                ('3', 3, 'created', '{"a,b": "x\"y", "q\"": "line\nend", "l": [[1], [2, [3]]], "o": {"p": 1}}'),
                ('4, "x"', 4, 'created', '{"id": "other", "resourceType": "Other", "meta": {"versionId": "9", "lastUpdated": "x", "profile": ["p"]}}'),
                ('5', 5, 'created', jsonb_build_object('z', (select jsonb_agg(g) from generate_series(0, 11) g)))"#,
        )
        .unwrap();
    let z = |value: &dyn Fn(usize) -> String| (0..12).map(value).collect::<Vec<_>>().join(",");
    let none = ",".repeat(12);
    assert_eq!(
        lines(&mut client, "Basic"),
        [
            format!(r#""a,b",b,e,id,l,l.0.0,l.1.0,l.1.1.0,meta.profile.0,n,o,o.p,"q""",resourceType,{}"#, z(&|place| format!("z.{place}"))),
            format!(r#",,,1,,,,,,,,,,Basic{none}"#),
            format!(r#",false,"",2,[],,,,,1.10,{{}},,,Basic{none}"#),
            format!("\"x\"\"y\",,,3,,1,2,3,,,,1,\"line\nend\",Basic{none}"),
            format!(r#",,,"4, ""x""",,,,,p,,,,,Basic{none}"#),
            format!(",,,5,,,,,,,,,,Basic,{}", z(&|place| place.to_string())),
        ]
    );
    // Names that could be taken for one another, and places among keys that look like them.
    client.batch_execute(r#"truncate basic; insert into basic (id, txid, status, resource) values ('1', 1, 'created', '{"a": {"b": 1}, "a.b": 2, "a\\b": 3, "": {"a": 4, "": 5}, "1a": 6, "9": 7, "10": 8}')"#).unwrap();
    assert_eq!(lines(&mut client, "Basic"), [r"9,10,.,.a,1a,a.b,a\.b,a\\b,id,resourceType", "7,8,5,4,6,1,2,3,1,Basic"]);
    // A view that is another at every look.
    client
        .batch_execute(
            "create view device as select id, txid, resource_type, status, jsonb_build_object('k' || random(), 1) as resource from basic",
        )
        .unwrap();
    assert_eq!(failure(&mut client, "select bulk.dump_csv('Device')").code, "55000");
    // Tables that hold FHIR show it as Aidbox format, as the documentation has it.
    client.batch_execute(r#"drop view device; set bulk.resource_format = fhir; truncate basic; insert into basic (id, txid, status, resource) values ('1', 1, 'created', '{"subject": {"reference": "Patient/7"}}')"#).unwrap();
    assert_eq!(lines(&mut client, "Basic"), ["id,resourceType,subject.id,subject.resourceType", "1,Basic,7,Patient"]);
    client.batch_execute("truncate basic; insert into basic (id, txid, status, resource) values ('bad', 1, 'created', '[1]')").unwrap();
    let failed = failure(&mut client, "select bulk.dump_csv('Basic')");
    assert!(failed.code == "2203C" && failed.message.contains("\"bad\""), "{failed:?}");
}

test!("types without rows or table have a header, unknown ones are an error", types);
fn types() {
    let database = shared().database();
    let mut client = database.connect();
    assert_eq!(lines(&mut client, "goal"), ["id,resourceType"]);
    client.batch_execute("select bulk.create_resource_table('Patient')").unwrap();
    assert_eq!(lines(&mut client, "Patient"), ["id,resourceType"]);
    for (name, code) in [("Nonsense", "42P01"), ("pa tient", "22023"), ("", "22023")] {
        let error = client.query("select bulk.dump_csv($1)", &[&name]).unwrap_err();
        assert_eq!(error.code().unwrap().code(), code, "{name}");
    }
    assert_eq!(failure(&mut client, "select bulk.dump_csv(null)").code, "22004");
}

test!("the rows are those of the header's snapshot, in flat memory, with a thousand columns", large);
fn large() {
    let database = shared().database();
    let mut client = database.connect();
    client
        .batch_execute(
            "select bulk.create_resource_table('Basic');
            insert into basic (id, txid, status, resource) select g::text, g, 'created', jsonb_build_object('n', g, 'c' || g % 1000, md5(g::text)) from generate_series(1, 60000) g",
        )
        .unwrap();
    let pid: i32 = client.query_one("select pg_backend_pid()", &[]).unwrap().get(0);
    client.batch_execute("begin; declare c no scroll cursor for select bulk.dump_csv('Basic')").unwrap();
    let peak = crate::support::memory_peak::Peak::watch(pid);
    let header: String = client.query_one("fetch 1 from c", &[]).unwrap().get(0);
    assert_eq!(header.split(',').count(), 1003);
    database.connect().batch_execute("insert into basic (id, txid, status, resource) values ('new', 1, 'created', '{\"new\": 1}'); delete from basic where id = '60000'").unwrap();
    let mut rows = 0;
    loop {
        let fetched = client.query("fetch 5000 from c", &[]).unwrap();
        if fetched.is_empty() {
            break;
        }
        assert!(fetched.iter().all(|row| row.get::<_, &str>(0).matches(',').count() == 1002));
        rows += fetched.len();
    }
    assert_eq!(rows, 60_000);
    // Two thirds of the body are commas: 65 MB went through.
    assert!(peak.bytes() < 64 << 20, "{}", peak.bytes());
    client.batch_execute("commit").unwrap();
    assert_eq!(value(&mut client, &format!("select count(*) from pg_stat_progress_copy where pid = {pid}")), "0");
}
