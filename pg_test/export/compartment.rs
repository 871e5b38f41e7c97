//! Exports of patients and Groups against what the official definitions say, evaluated by PostgreSQL: the expressions of the compartment's
//! search parameters as paths of its own, over the resources as they are dumped.

use crate::support::cluster::{cache, data, shared};
use crate::support::exports::{directory, exported, names};
use crate::support::statement::value;
use crate::support::trial::test;
use postgres::Client;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

fn definitions(name: &str) -> Value {
    let text = fs::read_to_string(cache().join("examples/package").join(name)).unwrap();
    serde_json::from_str(text.trim_start_matches('\u{feff}')).unwrap()
}

/// Of each type of the compartment the places of references to its patient, as jsonpath.
fn places() -> BTreeMap<String, BTreeSet<String>> {
    let (parameters, compartment) = (definitions("Bundle-searchParams.json"), definitions("CompartmentDefinition-patient.json"));
    let mut places: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for member in compartment["resource"].as_array().unwrap() {
        let kind = member["code"].as_str().unwrap();
        for code in member["param"].as_array().into_iter().flatten() {
            for entry in parameters["entry"].as_array().unwrap() {
                let parameter = &entry["resource"];
                if parameter["code"] != *code || !parameter["base"].as_array().unwrap().contains(&json!(kind)) {
                    continue;
                }
                for alternative in parameter["expression"].as_str().unwrap().split('|') {
                    let alternative = alternative.trim();
                    let Some(path) = alternative.strip_prefix(&format!("{kind}.")) else { continue };
                    let path = path.strip_suffix(".where(resolve() is Patient)").unwrap_or(path);
                    assert!(path.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'.'), "{alternative}");
                    places.entry(kind.to_owned()).or_default().insert(format!("lax $.{path}.reference"));
                }
            }
        }
    }
    assert_eq!(places.len(), 66);
    places
}

/// Writes down whose resources there are, by the definitions: `belongs (patient, name)`.
fn write_down(client: &mut Client) {
    client.batch_execute("create unlogged table belongs (patient text, name text)").unwrap();
    for (kind, places) in places() {
        if value(client, &format!("to_regclass('\"{}\"') is null", kind.to_lowercase())) == "true" {
            continue;
        }
        for place in places {
            let insert = format!(
                "insert into belongs select substr(r #>> '{{}}', 9), '{kind}/' || (l->>'id') from \
                 (select bulk.dump('{kind}', null, true)::jsonb as l offset 0) d, jsonb_path_query(l, '{place}') r where r #>> '{{}}' like 'Patient/%'"
            );
            client.batch_execute(&insert).unwrap();
        }
    }
    client.batch_execute("insert into belongs select id, 'Patient/' || id from patient; delete from belongs where patient not in (select id from patient); create index on belongs (patient)").unwrap();
}

fn expected(client: &mut Client, of: &str) -> BTreeSet<String> {
    client.query(&format!("select distinct name from belongs where {of}"), &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

test!("exports of patients among the official examples are what the definitions say", examples);
fn examples() {
    for format in ["aidbox", "fhir"] {
        let database = shared().database();
        let mut client = database.connect();
        let _storage = directory(&mut client);
        let all = cache().join("examples/all.ndjson.gz");
        client
            .batch_execute(&format!("set bulk.resource_format = {format}; select bulk.load('file://{}', fhir => true)", all.display()))
            .unwrap();
        write_down(&mut client);
        let found = names(&exported(&mut client, "patient", json!({}), None));
        assert_eq!(found, expected(&mut client, "true"));
        assert!(found.len() > 300, "{}", found.len());
        // One by one, through an index and without.
        client
            .batch_execute("create index on observation using gin (resource jsonb_path_ops); create index on patient using gin (resource)")
            .unwrap();
        for patient in ["example", "f001", "pat1", "xcda"] {
            let found = names(&exported(&mut client, "patient", json!({"patient": patient}), None));
            assert_eq!(found, expected(&mut client, &format!("patient = '{patient}'")), "{patient}");
            assert!(found.len() > 1);
        }
        let whole = names(&exported(&mut client, "system", json!({}), None));
        assert_eq!(whole.len(), 5305);
    }
}

test!("exports of patients and Groups of real data are what the definitions say", real, Data);
fn real() {
    let database = shared().database();
    let mut client = database.connect();
    let _storage = directory(&mut client);
    for file in fs::read_dir(data()).unwrap() {
        let path = file.unwrap().path();
        if let Some(name) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".ndjson.gz")) {
            client.batch_execute(&format!("select bulk.load('{}', '{name}', fhir => true)", path.display())).unwrap();
        }
    }
    write_down(&mut client);
    let ten: Vec<String> =
        client.query("select id from patient order by md5(id) limit 10", &[]).unwrap().iter().map(|row| row.get(0)).collect();
    for patient in &ten[..5] {
        let found = names(&exported(&mut client, "patient", json!({"patient": patient}), None));
        assert_eq!(found, expected(&mut client, &format!("patient = '{patient}'")), "{patient}");
    }
    client.batch_execute("create index on observation using gin (resource jsonb_path_ops); create index on explanationofbenefit using gin (resource jsonb_path_ops)").unwrap();
    for patient in &ten[5..] {
        let found = names(&exported(&mut client, "patient", json!({"patient": patient}), None));
        assert_eq!(found, expected(&mut client, &format!("patient = '{patient}'")), "{patient}");
        assert!(found.len() > 10, "{}", found.len());
    }
    let members: Vec<Value> = ten.iter().map(|id| json!({"entity": {"resourceType": "Patient", "id": id}})).collect();
    client.batch_execute("select bulk.create_resource_table('Group')").unwrap();
    client
        .execute(
            "insert into \"group\" (id, txid, status, resource) values ('ten', 1, 'created', jsonb_build_object('member', $1::text::jsonb))",
            &[&json!(members).to_string()],
        )
        .unwrap();
    let list = ten.iter().map(|id| format!("'{id}'")).collect::<Vec<_>>().join(", ");
    let found = names(&exported(&mut client, "group", json!({}), Some("ten")));
    assert_eq!(found, expected(&mut client, &format!("patient in ({list})")));
    let everybodys = names(&exported(&mut client, "patient", json!({}), None));
    let mut all = expected(&mut client, "true");
    // The Group was made since.
    all.insert("Group/ten".to_owned());
    assert_eq!(everybodys, all);
}
