//! `bulk.http`: requests as a forwarder hands them over, and what it passes on.

use crate::support::cluster::{server_directory, shared};
use crate::support::exports;
use crate::support::source::{File, gzip};
use crate::support::statement::{failure, value, wait_until};
use crate::support::trial::test;
use flate2::read::MultiGzDecoder;
use postgres::Client;
use serde_json::{Value, json};
use std::io::Read;

#[derive(Debug)]
struct Answer {
    status: i32,
    headers: Value,
    body: Value,
    stream: Option<String>,
}

impl Answer {
    fn said(&self) -> &str {
        let said = &self.body["issue"][0]["diagnostics"];
        said.as_str().or_else(|| self.body["message"].as_str()).unwrap_or_else(|| panic!("{self:?}"))
    }
}

fn request(client: &mut Client, method: &str, target: &str, headers: Value, body: Value) -> Answer {
    let body = (!body.is_null()).then(|| body.to_string());
    let row = client
        .query_one(
            "select status, headers::text, coalesce(body, 'null')::text, stream from bulk.http($1, $2, headers => $3::text::jsonb, body => $4::text::jsonb)",
            &[&method, &target, &headers.to_string(), &body],
        )
        .unwrap_or_else(|error| panic!("{method} {target}: {error:?}"));
    let json = |column: usize| serde_json::from_str(row.get(column)).unwrap();
    Answer { status: row.get(0), headers: json(1), body: json(2), stream: row.get(3) }
}

fn get(client: &mut Client, target: &str) -> Answer {
    request(client, "GET", target, json!({}), Value::Null)
}

fn post(client: &mut Client, target: &str, body: Value) -> Answer {
    request(client, "POST", target, json!({}), body)
}

/// The body that a stream's statement makes.
fn streamed(client: &mut Client, answer: &Answer) -> Vec<u8> {
    let rows = client.query(answer.stream.as_ref().unwrap_or_else(|| panic!("{answer:?}")), &[]).unwrap();
    rows.iter().flat_map(|row| row.get::<_, Vec<u8>>(0)).collect()
}

test!("every operation has its path; others are 404, other methods 405", paths);
fn paths() {
    let database = shared().database();
    let mut client = database.connect();
    for (path, methods) in [
        ("/Patient/$dump", "GET"),
        ("/patient/%24dump-csv", "GET"),
        ("/$dump-sql", "POST"),
        ("/$load", "POST"),
        ("/fhir/$load", "POST"),
        ("/Patient/$load", "POST"),
        ("/fhir/Patient/$load", "POST"),
        ("/$import", "POST"),
        ("/fhir/$import", "POST"),
        ("/v2/$import", "POST"),
        ("/v2/fhir/$import", "POST"),
        ("/v2/$import/x", "GET"),
        ("/BulkImportStatus/x", "GET"),
        ("/fhir/$export", "GET, POST"),
        ("/fhir/Patient/$export", "GET, POST"),
        ("/fhir/Group/g/$export", "GET, POST"),
        ("/fhir/$export-status/x", "GET, DELETE"),
        ("rpc", "POST"),
    ] {
        for method in ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "patch", "BREW", ""] {
            let answer = request(&mut client, method, path, json!({}), Value::Null);
            let has = methods.split(", ").any(|known| known == method);
            assert_eq!(answer.status == 405, !has, "{method} {path}: {answer:?}");
            if !has {
                let is_import = path.to_lowercase().contains("import");
                let kind = if is_import { "application/json" } else { "application/fhir+json" };
                assert_eq!((&answer.headers["allow"], &answer.headers["content-type"]), (&json!(methods), &json!(kind)));
                assert_eq!(answer.body["message"].is_string(), is_import, "{answer:?}");
            }
        }
    }
    for path in
        ["", "/", "//", "/nothing", "/fhir/Patient/$dump", "/Patient/$dump/", "/fhir/$dump-sql", "/$export", "/Unknown/$dump", "/fhir"]
    {
        let answer = get(&mut client, path);
        assert_eq!((answer.status, &answer.body["issue"][0]["code"]), (404, &json!("not-found")), "{path}: {answer:?}");
    }
    assert_eq!(value(&mut client, "select status from bulk.http(null, null, null, null, null)"), "404");
    assert_eq!(value(&mut client, "select status from bulk.http('GET', '/Patient/$dump', query => '[]')"), "400");
    assert_eq!(value(&mut client, "select status from bulk.http('GET', '/Patient/$dump', headers => '5')"), "400");
    for (target, parameter) in [("/Patient/$dump?_sinse=1", "_sinse"), ("/rpc?x=1", "x"), ("/BulkImportStatus/x?_pretty=true", "_pretty")] {
        let method = if target.starts_with("/rpc") { "POST" } else { "GET" };
        let answer = request(&mut client, method, target, json!({}), Value::Null);
        assert!(answer.status == 400 && answer.said().contains(parameter), "{answer:?}");
        assert_eq!(answer.body["message"].is_string(), target.contains("Import"), "{answer:?}");
    }
}

test!("dumps over HTTP are statements that stream what the functions dump", dumps);
fn dumps() {
    let database = shared().database();
    let mut client = database.connect();
    client.batch_execute("set timezone = 'Asia/Tokyo'; set datestyle = 'SQL, DMY'; set standard_conforming_strings = off; select bulk.create_resource_table('Patient')").unwrap();
    client
        .batch_execute("insert into patient (id, txid, cts, ts, status, resource) select 'p' || g, g, t, t, 'created', '{\"name\": [{\"given\": [\"Alice\"]}], \"deceased\": {\"boolean\": false}}' from generate_series(1, 3) g, lateral (select timestamptz '2021-06-10T00:00:00Z' + g * interval '1 day' as t) t")
        .unwrap();
    for (target, dumped) in [
        ("/Patient/$dump", "bulk.dump('Patient')"),
        ("/patient/$dump?fhir=true", "bulk.dump('Patient', fhir => true)"),
        ("/Patient/$dump?_since=2021-06-12", "bulk.dump('Patient', '2021-06-12T00:00:00Z')"),
        ("/Patient/$dump?_since=2021-06-12T01:00:00%2B01:00", "bulk.dump('Patient', '2021-06-12T00:00:00Z')"),
        ("/Patient/$dump?_since=2021-06-12T01:00:00+01:00", "bulk.dump('Patient', '2021-06-12T00:00:00Z')"),
        ("/Patient/$dump?_since=2021-06-11T23:59:59.999999", "bulk.dump('Patient', '2021-06-11T23:59:59.999999Z')"),
        ("/Patient/$dump?_since=9998", "bulk.dump('Patient', '9998-01-01T00:00:00Z')"),
        ("/Patient/$dump-csv", "bulk.dump_csv('Patient')"),
        ("/Account/$dump", "bulk.dump('Account')"),
    ] {
        let answer = get(&mut client, target);
        let kind = if target.contains("csv") { "text/csv" } else { "application/ndjson" };
        assert_eq!((answer.status, &answer.headers), (200, &json!({"content-type": kind})), "{target}: {answer:?}");
        assert!(answer.body.is_null());
        let lines = value(
            &mut client,
            &format!(
                "select coalesce(string_agg(line || case when '{kind}' = 'text/csv' then e'\\r\\n' else e'\\n' end, ''), '') from (select {dumped} as line) x"
            ),
        );
        let text = String::from_utf8(streamed(&mut client, &answer)).unwrap();
        assert_eq!(text.replace("\r\n", "\n"), lines.replace("\r\n", "\n"), "{target}");
        let zipped = get(&mut client, &format!("{target}{}gzip=true", if target.contains('?') { '&' } else { '?' }));
        assert_eq!(zipped.headers, json!({"content-type": kind, "content-encoding": "gzip"}));
        let mut inflated = String::new();
        MultiGzDecoder::new(&streamed(&mut client, &zipped)[..]).read_to_string(&mut inflated).unwrap();
        assert_eq!(inflated, text, "{target}");
    }
    let text = |client: &mut Client, query: &str| {
        value(client, &format!("select status || coalesce(stream, '') from bulk.http('GET', '/Patient/$dump', '{query}')"))
    };
    assert!(text(&mut client, r#"{"fhir": true, "gzip": "false", "_since": null}"#).starts_with("200select bulk.dump_bytes("));
    assert_eq!(text(&mut client, r#"{"fhir": ["true", "true"]}"#), "400");
    for wrong in ["_since=yesterday", "_since=", "_since=2021-13-01", "_since=2021-01-01&_since=2022-01-01", "fhir=yes", "gzip", "x=1"] {
        let answer = get(&mut client, &format!("/Patient/$dump?{wrong}"));
        assert_eq!((answer.status, &answer.stream), (400, &None), "{wrong}: {answer:?}");
    }
    client.batch_execute("create table custom (like patient including all); alter table custom drop column cts").unwrap();
    assert_eq!(get(&mut client, "/Custom/$dump").status, 200);
    assert_eq!(get(&mut client, "/Custom/$dump?_since=2021").status, 422);
    client.batch_execute("create table broken (id text primary key)").unwrap();
    assert_eq!(get(&mut client, "/Broken/$dump").status, 422);
}

test!("the query of $dump-sql is checked before it is streamed", queries);
fn queries() {
    let database = shared().database();
    let mut client = database.connect();
    client.batch_execute("create table t (a int, b text); insert into t values (1, 'x'), (2, null)").unwrap();
    for (target, body, kind, text) in [
        ("/$dump-sql", json!({"query": "select * from t"}), "text/tab-separated-values", "1\tx\n2\t\\N\n"),
        ("/$dump-sql?_format=csv", json!({"query": "select * from t"}), "application/CSV", "1,x\r\n2,\r\n"),
        (
            "/$dump-sql?_format=csv",
            json!({"query": "select * from t", "format": "ndjson"}),
            "application/ndjson",
            "{\"a\":1,\"b\":\"x\"}\n{\"a\":2,\"b\":null}\n",
        ),
        ("/$dump-sql?_format=json", json!({"query": "select 'it''s \\' as q"}), "application/ndjson", "{\"q\":\"it's \\\\\"}\n"),
        (
            "/$dump-sql",
            json!({"query": "select 1 as a", "format": "sql", "options": {"table": "u"}}),
            "application/sql",
            "INSERT INTO u (a) VALUES (1);\n",
        ),
        (
            "/$dump-sql",
            json!({"query": "select 1 as a", "format": "elastic-bulk", "options": null}),
            "application/x-ndjson",
            "{\"index\":{}}\n{\"a\":1}\n",
        ),
    ] {
        let answer = post(&mut client, target, body.clone());
        assert_eq!((answer.status, &answer.headers["content-type"]), (200, &json!(kind)), "{body}: {answer:?}");
        let got = String::from_utf8(streamed(&mut client, &answer)).unwrap();
        assert_eq!(got.replace("\r\n", "\n"), text.replace("\r\n", "\n"), "{body}");
    }
    for (body, status, said) in [
        (Value::Null, 400, "query"),
        (json!([]), 400, "query"),
        (json!({}), 400, "query"),
        (json!({"query": 5}), 400, "query"),
        (json!({"query": "select 1", "fromat": "csv"}), 400, "fromat"),
        (json!({"query": "select 1", "format": "xml"}), 400, "format"),
        (json!({"query": "select 1", "format": "sql"}), 400, "table"),
        (json!({"query": "select 1", "options": {"x": 1}}), 400, "x"),
        (json!({"query": "selekt 1"}), 422, "selekt"),
        (json!({"query": "select * from nothing"}), 422, "nothing"),
        (json!({"query": "select 1; select 2"}), 422, "statement"),
        (json!({"query": "delete from t"}), 422, "DELETE"),
        (json!({"query": "with x as (delete from t returning *) select * from x"}), 422, "reads"),
        (json!({"query": "select * from t for update"}), 422, "reads"),
        (json!({"query": "select 1 as a, 2 as a", "format": "ndjson"}), 422, "more than once"),
        (json!({"query": "select 1 / 0"}), 422, "zero"),
    ] {
        let answer = post(&mut client, "/$dump-sql", body.clone());
        assert!(answer.status == status && answer.said().contains(said) && answer.stream.is_none(), "{body}: {answer:?}");
    }
    assert_eq!(post(&mut client, "/$dump-sql?_format=xml", json!({"query": "select 1"})).status, 400);
    assert_eq!(value(&mut client, "select count(*) from t"), "2");
    // Nothing of the query is run before it is streamed.
    let answer = post(&mut client, "/$dump-sql", json!({"query": "select pg_notify('x', 'y'), pg_sleep(600)"}));
    assert_eq!(answer.status, 200, "{answer:?}");
}

test!("$load over HTTP answers counts, or what was wrong with nothing stored", loads);
fn loads() {
    let database = shared().database();
    let mut client = database.connect();
    let lines = "{\"resourceType\":\"Patient\",\"id\":\"1\",\"multipleBirthInteger\":2}\n{\"resourceType\":\"Goal\",\"id\":\"1\"}\n";
    let file = File::new(&gzip(lines.as_bytes()));
    let body = json!({"source": file.url()});
    for (target, answered) in [("/$load", json!({"Goal": 1, "Patient": 1})), ("/fhir/$load", json!({"Goal": 1, "Patient": 1}))] {
        let answer = post(&mut client, target, body.clone());
        assert_eq!(
            (answer.status, &answer.body, &answer.headers["content-type"]),
            (200, &answered, &json!("application/json")),
            "{answer:?}"
        );
    }
    assert_eq!(value(&mut client, "select resource from patient"), r#"{"multipleBirth": {"integer": 2}}"#);
    let patients = File::new(b"{\"id\":\"2\",\"deceasedBoolean\":true}\n");
    let typed = json!({"source": patients.url(), "update": true, "resourceType": "Goal"});
    assert_eq!(post(&mut client, "/fhir/patient/$load", typed).body, json!({"total": 1}));
    assert_eq!(post(&mut client, "/Patient/$load", json!({"source": patients.url()})).body, json!({"total": 1}));
    assert_eq!(value(&mut client, "select resource from patient where id = '2'"), r#"{"deceasedBoolean": true}"#);
    let before = value(&mut client, "select string_agg(p::text, ' ' order by id) from patient p");
    let cut = File::new(b"{\"id\":\"3\"}\n{\"id\":\"4\"}\n{\"id\":}\n");
    let mut zipped = gzip("{\"id\":\"5\"}\n".repeat(1000).as_bytes());
    zipped.truncate(zipped.len() - 4);
    let truncated = File::new(&zipped);
    for (target, body, status, said) in [
        ("/Patient/$load", Value::Null, 400, "object"),
        ("/Patient/$load", json!({}), 400, "source"),
        ("/Patient/$load", json!({"source": "/x", "sauce": 1}), 400, "sauce"),
        ("/Patient/$load", json!({"source": "ftp://host/x"}), 400, "URL"),
        ("/Patient/$load", json!({"source": "/nowhere"}), 422, "no such file"),
        ("/Patient/$load", json!({"source": "http://127.0.0.1:9/x"}), 502, "connect"),
        ("/Patient/$load", json!({"source": "http://127.0.0.2:9/x"}), 403, "not allowed"),
        ("/Unknown/$load", json!({"source": cut.url()}), 404, "Unknown"),
        ("/$load", json!({"source": cut.url(), "resourceType": "Unknown"}), 400, "Unknown"),
        ("/Patient/$load", json!({"source": cut.url()}), 422, "line 3, byte 7"),
        ("/Patient/$load", json!({"source": truncated.url()}), 422, "gzip"),
        ("/Patient/$load", json!({"source": patients.url(), "on-conflict": "error"}), 422, "exists already"),
    ] {
        let answer = post(&mut client, target, body.clone());
        assert!(answer.status == status && answer.said().contains(said), "{target} {body}: {answer:?}");
        assert_eq!(answer.body["resourceType"], "OperationOutcome");
    }
    assert_eq!(value(&mut client, "select string_agg(p::text, ' ' order by id) from patient p"), before);
    // What resources say is in no answer.
    client.batch_execute("create unique index by_number on patient ((resource->>'number')); alter table patient add constraint c check (not resource ? 'secret')").unwrap();
    let numbers = File::new(b"{\"id\":\"7\",\"number\":\"123-45-6789\"}\n{\"id\":\"8\",\"number\":\"123-45-6789\"}\n");
    let checked = File::new(b"{\"id\":\"7\",\"secret\":\"123-45-6789\"}\n");
    for (file, said) in [(numbers, "The key is not shown."), (checked, "The failing row is not shown.")] {
        let answer = post(&mut client, "/Patient/$load", json!({"source": file.url()}));
        assert!(answer.status == 422 && answer.said().contains(said) && !answer.said().contains("6789"), "{answer:?}");
    }
    // An answer is no end of the transaction: what came before it stays.
    client.batch_execute("begin; insert into patient (id, txid, status, resource) values ('9', 1, 'created', '{}')").unwrap();
    assert_eq!(post(&mut client, "/Patient/$load", json!({"source": cut.url()})).status, 422);
    client.batch_execute("commit").unwrap();
    assert_eq!(value(&mut client, "select count(*) from patient"), "3");
    client.batch_execute("begin read only").unwrap();
    assert_eq!(post(&mut client, "/Patient/$load", json!({"source": patients.url()})).status, 422);
    client.batch_execute("rollback").unwrap();
}

test!("$import over HTTP and its statuses", imports);
fn imports() {
    let database = shared().database();
    let mut client = database.connect();
    client.batch_execute("set bulk.base_url = 'https://box.example.org/api'").unwrap();
    let file = File::new(b"{\"id\":\"1\",\"deceasedBoolean\":true}\n");
    let inputs = json!([{"resourceType": "Patient", "url": file.url()}]);
    let begun = post(&mut client, "/fhir/$import", json!({"id": "one", "inputs": inputs}));
    assert_eq!((begun.status, &begun.headers["content-location"]), (200, &json!("https://box.example.org/api/BulkImportStatus/one")));
    assert_eq!(value(&mut client, "bulk.wait('one', '60 s')"), "done");
    for path in ["/BulkImportStatus/one", "/fhir/BulkImportStatus/one"] {
        let status = get(&mut client, path);
        assert_eq!((status.status, &status.body["status"], &status.body["inputs"][0]["total"]), (200, &json!("finished"), &json!(1)));
        assert_eq!(status.headers["content-type"], "application/json");
    }
    assert_eq!(value(&mut client, "select resource from patient"), r#"{"deceased": {"boolean": true}}"#);
    let generated = post(&mut client, "/$import", json!({"inputs": inputs}));
    let id = generated.body["id"].as_str().unwrap();
    assert_eq!(
        (generated.status, &generated.headers["content-location"]),
        (201, &json!(format!("https://box.example.org/api/BulkImportStatus/{id}")))
    );
    let second = post(&mut client, "/v2/$import", json!({"id": "two words", "inputs": inputs}));
    assert_eq!((second.status, &second.headers["content-location"]), (200, &json!("https://box.example.org/api/v2/$import/two%20words")));
    assert_eq!(value(&mut client, "bulk.wait('two words', '60 s')"), "done");
    let status = get(&mut client, "/v2/$import/two%20words");
    assert_eq!((status.status, &status.body["outcome"]), (200, &json!("succeeded")));
    assert_eq!(post(&mut client, "/v2/fhir/$import", json!({"id": "three", "inputs": inputs})).status, 200);
    assert_eq!(value(&mut client, "bulk.wait('three', '60 s')"), "done");
    for (body, status) in [
        (json!({"id": "one", "inputs": inputs}), 409),
        (json!({"id": "none", "action": "pause"}), 404),
        (json!({"id": "one", "action": "abort"}), 406),
        (json!({"inputs": []}), 400),
        (json!([]), 400),
        (Value::Null, 400),
        (json!({"id": "a\r\nset-cookie: x", "inputs": inputs}), 400),
        (json!({"inputs": [{"resourceType": "Patient", "url": "ftp://x"}]}), 400),
    ] {
        let answer = post(&mut client, "/$import", body.clone());
        assert!(answer.status == status && answer.body["message"].is_string(), "{body}: {answer:?}");
    }
    assert_eq!(get(&mut client, "/BulkImportStatus/none").status, 404);
    // The 2019 actions, by the same path.
    assert_eq!(post(&mut client, "/$import", json!({"resource": {"id": "one", "action": "resume"}})).status, 406);
    client.batch_execute("begin read only").unwrap();
    let answer = post(&mut client, "/$import", json!({"inputs": inputs}));
    assert!(answer.status == 422 && answer.body["message"].is_string(), "{answer:?}");
    client.batch_execute("rollback").unwrap();
}

test!("$export over HTTP at every level, its status and its end", exports);
fn exports() {
    let database = shared().database();
    let mut client = database.connect();
    let unset = get(&mut client, "/fhir/$export");
    assert_eq!((unset.status, unset.said()), (500, "storage-type not specified"));
    let _directory = exports::directory(&mut client);
    client.batch_execute("set bulk.base_url = 'https://box.example.org'; select bulk.create_resource_table(name) from unnest(array['Patient', 'Group', 'Observation']) name").unwrap();
    client
        .batch_execute(
            "insert into patient (id, txid, status, resource) select p, 1, 'created', '{}' from unnest(array['a', 'b']) p;
             insert into \"group\" (id, txid, status, resource) values ('g', 1, 'created', '{\"member\": [{\"entity\": {\"id\": \"a\", \"resourceType\": \"Patient\"}}]}');
             insert into observation (id, txid, status, resource) select 'o' || p, 1, 'created', jsonb_build_object('subject', jsonb_build_object('id', p, 'resourceType', 'Patient')) from unnest(array['a', 'b']) p",
        )
        .unwrap();
    let parameters = |list: Value| json!({"resourceType": "Parameters", "parameter": list});
    let types = json!([{"name": "_type", "valueString": "Patient,Observation"}]);
    let lenient = json!({"Prefer": "respond-async, handling=lenient", "accept": "application/fhir+json"});
    for (method, target, body, counts, request_url) in [
        ("GET", "/fhir/$export?_type=Patient,Observation", Value::Null, vec![2, 2], "/fhir/$export?_type=Patient,Observation"),
        ("POST", "/fhir/$export", parameters(types.clone()), vec![2, 2], "/fhir/$export"),
        (
            "GET",
            "/fhir/Patient/$export?_type=Patient&_type=Observation&patient=a",
            Value::Null,
            vec![1, 1],
            "/fhir/Patient/$export?_type=Patient&_type=Observation&patient=a",
        ),
        ("POST", "/fhir/Patient/$export", parameters(types.clone()), vec![2, 2], "/fhir/Patient/$export"),
        (
            "GET",
            "/fhir/Group/g/$export?_outputFormat=application/fhir+ndjson&_since=2001-01-01T01:00:00+01:00",
            Value::Null,
            vec![1, 1],
            "/fhir/Group/g/$export?_outputFormat=application/fhir%2Bndjson&_since=2001-01-01T01:00:00%2B01:00",
        ),
        ("POST", "/fhir/Group/g/$export", Value::Null, vec![1, 1], "/fhir/Group/g/$export"),
    ] {
        let begun = request(&mut client, method, target, lenient.clone(), body);
        assert_eq!((begun.status, &begun.headers["content-type"]), (202, &json!("application/fhir+json")), "{target}: {begun:?}");
        let location = begun.headers["content-location"].as_str().unwrap();
        let path = location.strip_prefix("https://box.example.org").unwrap_or_else(|| panic!("{location}")).to_owned();
        let id = path.strip_prefix("/fhir/$export-status/").unwrap();
        let under_way = get(&mut client, &path);
        assert!(
            under_way.status == 200
                || (under_way.headers["x-progress"].is_string()
                    && under_way.headers["retry-after"].is_string()
                    && under_way.body.is_null()),
            "{under_way:?}"
        );
        assert_eq!(value(&mut client, &format!("bulk.wait('{id}', '60 s')")), "completed");
        let manifest = get(&mut client, &path);
        assert_eq!((manifest.status, &manifest.headers["content-type"]), (200, &json!("application/json")));
        assert!(manifest.headers["expires"].is_string());
        let written: Vec<i64> = manifest.body["output"].as_array().unwrap().iter().map(|file| file["count"].as_i64().unwrap()).collect();
        assert_eq!(written, counts, "{target}: {manifest:?}");
        assert_eq!(manifest.body["request"], json!(format!("https://box.example.org{request_url}")));
        assert_eq!(request(&mut client, "DELETE", &path, json!({}), Value::Null).status, 202);
        assert_eq!(get(&mut client, &path).status, 404);
        assert_eq!(request(&mut client, "DELETE", &path, json!({}), Value::Null).status, 404);
    }
    for (method, target, body, status) in [
        ("GET", "/fhir/$export?nonsense=1", Value::Null, 422),
        ("GET", "/fhir/$export?patient=a", Value::Null, 422),
        ("GET", "/fhir/$export?_type=Nonsense", Value::Null, 400),
        ("POST", "/fhir/$export", json!({}), 422),
        ("POST", "/fhir/$export", json!([]), 422),
        ("POST", "/fhir/$export?_type=Patient", parameters(json!([])), 400),
        ("GET", "/fhir/Group/none/$export", Value::Null, 404),
    ] {
        let answer = request(&mut client, method, target, json!({}), body.clone());
        assert_eq!(
            (answer.status, &answer.body["resourceType"]),
            (status, &json!("OperationOutcome")),
            "{method} {target} {body}: {answer:?}"
        );
    }
    // Lenient: what is not known is left out, and told in the manifest.
    for (method, target, body) in [
        ("GET", "/fhir/$export?includeAssociatedData=x&_type=Patient", Value::Null),
        ("POST", "/fhir/$export", parameters(json!([{"name": "includeAssociatedData", "valueString": "x"}, types[0]]))),
    ] {
        let begun = request(&mut client, method, target, lenient.clone(), body);
        let location = begun.headers["content-location"].as_str().unwrap_or_else(|| panic!("{begun:?}")).to_owned();
        let id = location.rsplit('/').next().unwrap().to_owned();
        assert_eq!(value(&mut client, &format!("bulk.wait('{id}', '60 s')")), "completed");
        let manifest = get(&mut client, &format!("/fhir/$export-status/{id}"));
        assert!(manifest.body["extension"]["warnings"][0].as_str().unwrap().contains("includeAssociatedData"), "{manifest:?}");
    }
}

test!("/rpc answers as bulk.rpc does", calls);
fn calls() {
    let database = shared().database();
    let mut client = database.connect();
    let answer = post(&mut client, "/rpc", json!({"method": "aidbox.bulk/import-status"}));
    assert_eq!((answer.status, &answer.body), (422, &json!({"error": {"message": "No active imports"}})));
    let unknown = post(&mut client, "/rpc", json!({"method": "nothing"}));
    assert_eq!(
        (unknown.status, &unknown.body["error"]["code"], &unknown.headers["content-type"]),
        (422, &json!("42883"), &json!("application/json"))
    );
    let several = post(&mut client, "/rpc", json!([{"method": "nothing"}, {"method": "aidbox.bulk/import-status"}]));
    assert_eq!((several.status, several.body.as_array().unwrap().len()), (200, 2));
    assert_eq!(post(&mut client, "/rpc", Value::Null).status, 422);
    let _directory = exports::directory(&mut client);
    let checked = post(&mut client, "/rpc", json!({"method": "aidbox.bulk/storage-healthcheck"}));
    assert_eq!((checked.status, &checked.body["result"]["message"]), (200, &json!("ok")), "{checked:?}");
}

test!("missing rights are 403 over HTTP", rights);
fn rights() {
    let database = shared().database();
    let mut client = database.connect();
    let name = &database.name;
    let directory = server_directory();
    client
        .batch_execute(&format!(
            "set bulk.storage_backend = 'file'; set bulk.storage_file_directory = '{}';
             select bulk.create_resource_table('Patient'); create role poor_{name}; create table secret (a int)",
            directory.path().display()
        ))
        .unwrap();
    let file = File::new(b"{\"id\":\"1\"}\n");
    assert_eq!(
        post(&mut client, "/$import", json!({"id": "another's", "inputs": [{"resourceType": "Patient", "url": file.url()}]})).status,
        200
    );
    assert_eq!(value(&mut client, "bulk.wait('another''s', '60 s')"), "done");
    client.batch_execute(&format!("set role poor_{name}")).unwrap();
    for (method, target, body) in [
        ("GET", "/Patient/$dump", Value::Null),
        ("GET", "/Patient/$dump-csv", Value::Null),
        ("POST", "/$dump-sql", json!({"query": "select * from secret"})),
        ("POST", "/Patient/$load", json!({"source": file.url()})),
        ("POST", "/fhir/$load", json!({"source": "https://example.org/x"})),
        ("POST", "/$import", json!({"inputs": [{"resourceType": "Patient", "url": file.url()}]})),
        ("POST", "/$import", json!({"id": "another's", "action": "abort"})),
        ("GET", "/BulkImportStatus/another's", Value::Null),
        ("GET", "/fhir/$export", Value::Null),
        ("POST", "/rpc", json!({"method": "aidbox.bulk/storage-healthcheck"})),
    ] {
        let answer = request(&mut client, method, target, json!({}), body.clone());
        assert_eq!(answer.status, 403, "{method} {target} {body}: {answer:?}");
    }
    client.batch_execute(&format!("reset role; grant select on patient to poor_{name}; set role poor_{name}")).unwrap();
    assert_eq!(get(&mut client, "/Patient/$dump").status, 200);
    let denied = post(&mut client, "/Patient/$load", json!({"source": file.url()}));
    assert_eq!(denied.status, 403);
}

test!("hostile requests get 4xx and do nothing", hostile);
fn hostile() {
    let database = shared().database();
    let mut client = database.connect();
    let _directory = exports::directory(&mut client);
    client.batch_execute("select bulk.create_resource_table('Patient')").unwrap();
    let long = "x".repeat(70_000);
    for segment in [
        "patient;drop table patient",
        "patient--",
        "\"patient\"",
        "pg_catalog.pg_class",
        "patient'",
        "..",
        ".",
        "%2e%2e",
        "..%2f..%2fetc%2fpasswd",
        "%00",
        "a%0d%0aset-cookie:%20x",
        "пациент",
        "$(id)",
        &long,
    ] {
        for target in [
            format!("/{segment}/$dump"),
            format!("/{segment}/$dump-csv"),
            format!("/{segment}/$dump?fhir=true"),
            format!("/Patient/../{segment}/$dump"),
            format!("/BulkImportStatus/{segment}"),
            format!("/v2/$import/{segment}"),
            format!("/fhir/$export-status/{segment}"),
            format!("/fhir/Group/{segment}/$export"),
            format!("/{segment}"),
            format!("/Patient/$dump?{segment}=1"),
            format!("/Patient/$dump?_since={segment}"),
            format!("/fhir/Patient/$export?_type={segment}"),
            format!("/fhir/$export?{segment}=1"),
        ] {
            let answer = get(&mut client, &target);
            assert!((400..500).contains(&answer.status) && answer.stream.is_none(), "{target}: {answer:?}");
            let headers = answer.headers.as_object().unwrap();
            assert!(headers.values().all(|value| !value.as_str().unwrap().contains(['\r', '\n'])), "{answer:?}");
        }
        let typed = format!("/{segment}/$load");
        let answer = post(&mut client, &typed, json!({"source": "/etc/passwd"}));
        assert!((400..500).contains(&answer.status), "{typed}: {answer:?}");
    }
    for id in ["a\r\nset-cookie: x", "a\nb", "", &long] {
        assert_eq!(
            post(&mut client, "/$import", json!({"id": id, "inputs": [{"resourceType": "Patient", "url": "/x"}]})).status,
            400,
            "{id:?}"
        );
    }
    let large = json!({"source": "x".repeat(17 << 20)});
    assert_eq!(post(&mut client, "/$load", large).status, 413);
    assert_eq!(get(&mut client, &format!("/Patient/$dump?{long}")).status, 414);
    assert_eq!(value(&mut client, "select count(*) from bulk.job where kind <> 'load'"), "0");
    assert_eq!(value(&mut client, "select count(*) from patient"), "0");
}

test!("a request that is cancelled is no answer", cancelled);
fn cancelled() {
    let database = shared().database();
    let mut client = database.connect();
    let source = crate::support::source::Slow::start(
        gzip(b"{\"id\":\"1\"}\n"),
        crate::support::source::Manner { most: 10, hangs: true, pause: std::time::Duration::ZERO, ranges: true },
    );
    let call = format!("select bulk.http('POST', '/Patient/$load', body => '{{\"source\": \"{}\"}}')", source.url());
    client.batch_execute("set statement_timeout = '300ms'").unwrap();
    assert_eq!(failure(&mut client, &call).code, "57014");
    client.batch_execute("reset statement_timeout").unwrap();
    wait_until("nothing is left", || value(&mut client, "select count(*) from bulk.job") == "0");
    assert_eq!(get(&mut client, "/Patient/$dump").status, 200);
}

test!("errors outside of bulk.http have a status too", outside);
fn outside() {
    let database = shared().database();
    let mut client = database.connect();
    for (state, status, code) in [
        ("42501", 403, "forbidden"),
        ("22012", 422, "processing"),
        ("42P01", 422, "processing"),
        ("55000", 422, "processing"),
        ("55P03", 503, "transient"),
        ("ZZ001", 422, "processing"),
        ("08006", 502, "transient"),
        ("53300", 503, "transient"),
        ("57014", 503, "transient"),
        ("40001", 503, "transient"),
        ("XX000", 500, "exception"),
        ("", 500, "exception"),
    ] {
        let row = client.query_one("select status, headers->>'content-type', body->'issue'->0->>'code', body->'issue'->0->>'diagnostics' from bulk.http_error($1, 'it''s so')", &[&state]).unwrap();
        let got: (i32, &str, &str, &str) = (row.get(0), row.get(1), row.get(2), row.get(3));
        assert_eq!(got, (status, "application/fhir+json", code, "it's so"), "{state}");
    }
    assert_eq!(value(&mut client, "select status from bulk.http_error(null, null)"), "500");
}
