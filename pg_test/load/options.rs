//! The options of a load: what they do to its lines, and what is refused.

use crate::support::cluster::{server_directory, shared};
use crate::support::source::File;
use crate::support::statement::{failure, value};
use crate::support::trial::{SERVER, WRITING, parts, test};
use std::fs;
use std::os::unix::fs::symlink;

parts!(SERVER, WRITING);

test!("merge lays an object over every resource, strip-nulls takes nulls out, as the server's own functions do", changes);
fn changes() {
    let database = shared().database();
    let mut client = database.connect();
    let lines = [
        r#"{"id":"1","resourceType":"Patient"}"#,
        r#"{"id":"2","resourceType":"Patient","a":null,"n":1.10,"deep":{"x":null,"y":[null,{"z":null,"k":"v"}]},"managingOrganization":{"reference":"Organization/9"}}"#,
        r#"{"id":"3","resourceType":"Patient","a":1,"a":null,"b":null,"b":2,"extra":{"x":1}}"#,
        r#"{"id":"4","resourceType":"Patient","meta":{"profile":["p"],"versionId":"7"},"deceasedBoolean":true}"#,
    ];
    let file = File::new(lines.join("\n").as_bytes());
    let merge = r#"{"extra": {"n": 12345678901234567890.1230, "none": null}, "a": [1.10, "é\n"], "b": null}"#;
    for fast in ["on", "off"] {
        client.batch_execute(&format!("set bulk.fast_path = {fast}")).unwrap();
        for (options, expected) in [
            (format!(r#"{{"merge": {merge}}}"#), format!("line || '{merge}'")),
            (r#"{"strip-nulls": true}"#.to_owned(), "jsonb_strip_nulls(line)".to_owned()),
            (format!(r#"{{"strip-nulls": true, "merge": {merge}}}"#), format!("jsonb_strip_nulls(line || '{merge}')")),
            (r#"{"strip-nulls": false, "merge": null}"#.to_owned(), "line".to_owned()),
        ] {
            for call in [
                format!("bulk.load('{}', 'Patient', options => '{options}')", file.url()),
                format!("bulk.load('{{\"source\": \"{}\", {}', 'Patient')", file.url(), &options[1..]),
                format!("bulk.load('{{\"source\": \"{}\", \"resourceType\": \"Patient\", {}'::jsonb)", file.url(), &options[1..]),
            ] {
                client.batch_execute("drop table if exists patient, patient_history").unwrap();
                assert_eq!(value(&mut client, &call), r#"{"total": 4}"#, "{call}");
                for line in lines {
                    let wanted = value(
                        &mut client,
                        &format!(
                            "select (({expected}) #- '{{meta,versionId}}') - 'id' - 'resourceType' from (select '{line}'::jsonb as line) x"
                        ),
                    );
                    let id = value(&mut client, &format!("select '{line}'::jsonb->>'id'"));
                    assert_eq!(value(&mut client, &format!("select resource from patient where id = '{id}'")), wanted, "{call}: {line}");
                }
            }
        }
    }
    // What is laid over is in the format of the lines.
    let options = r#"{"merge": {"managingOrganization": {"reference": "Organization/1"}, "deceasedDateTime": "2020"}}"#;
    client.batch_execute(&format!("select bulk.load('{}', fhir => true, options => '{options}')", file.url())).unwrap();
    let stored = value(&mut client, "select resource from patient where id = '1'");
    assert_eq!(stored, r#"{"deceased": {"dateTime": "2020"}, "managingOrganization": {"id": "1", "resourceType": "Organization"}}"#);
}

test!("wrong options are errors that say what is expected", wrong);
fn wrong() {
    let database = shared().database();
    let mut client = database.connect();
    let file = File::new(b"{\"id\":\"1\"}\n");
    for options in [
        r#"{"merge": []}"#,
        r#"{"merge": "x"}"#,
        r#"{"merge": {"id": "1"}}"#,
        r#"{"merge": {"resourceType": "Goal"}}"#,
        r#"{"strip-nulls": "yes"}"#,
        r#"{"headers": ["x"]}"#,
        r#"{"headers": {"x": 1}}"#,
        r#"{"headers": {"x y": "1"}}"#,
        r#"{"headers": {"x": "1\r\nHost: evil"}}"#,
        r#"{"headers": {"Host": "evil"}}"#,
        r#"{"headers": {"content-length": "5"}}"#,
        r#"{"headers": {"Via": "1.1 me"}}"#,
        r#"{"headers": {"X-Forwarded-For": "127.0.0.1"}}"#,
        r#"{"headers": {"forwarded": "for=127.0.0.1"}}"#,
        r#"{"headers": {"Proxy-Authorization": "Basic eA=="}}"#,
        r#"{"headers": {"Proxy-Connection": "close"}}"#,
        r#"{"headers": {"Trailer": "x"}}"#,
        r#"{"headers": {"Keep-Alive": "timeout=5"}}"#,
        r#"{"connect-timeout": -1}"#,
        r#"{"read-timeout": 1.5}"#,
        r#"{"retries": 101}"#,
        r#"{"retries": "3"}"#,
        r#"{"max-errors": -1}"#,
        r#"{"max-errors": "all"}"#,
        r#"{"method": 1}"#,
        r#"{"temp_table": ["x"]}"#,
        r#"{"keep-meta": 1}"#,
        r#"{"on-conflict": "latest"}"#,
        r#"{"validation": "on"}"#,
        r#"{"validation": {"enable": "maybe"}}"#,
        r#"{"validation": {"checks": "none"}}"#,
        r#"{"validation": {"on": true}}"#,
        r#"{"unknown": 1}"#,
        "[]",
        "null",
    ] {
        let error = failure(&mut client, &format!("select bulk.load('{}', 'Patient', options => '{options}')", file.url()));
        assert_eq!(error.code, "22023", "{options}: {error:?}");
    }
    // Deeper than a request may be, and no panic.
    let deep = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
    let error = failure(&mut client, &format!("select bulk.load('{}', 'Patient', options => '{deep}')", file.url()));
    assert_eq!(error.code, "22023", "{error:?}");
    let error = failure(
        &mut client,
        &format!("select bulk.load('{}', 'Patient', options => '{{\"merge\": {{\"x\": \"\\u0000\"}}}}'::text::jsonb)", file.url()),
    );
    assert_eq!(error.code, "22P05", "{error:?}");
}

test!("options beside a request count where it does not say otherwise", beside);
/// Options beside a request.
fn beside() {
    let database = shared().database();
    let mut client = database.connect();
    let file = File::new(b"{\"id\":\"1\"}\n");
    let load = |request: &str, options: &str| {
        format!("bulk.load('{{\"source\": \"{}\", \"resourceType\": \"Patient\"{request}}}', options => '{options}')", file.url())
    };
    assert_eq!(value(&mut client, &load("", "{}")), r#"{"total": 1}"#);
    assert_eq!(failure(&mut client, &format!("select {}", load(r#", "update": true"#, r#"{"on-conflict": "error"}"#))).code, "23505");
    assert_eq!(value(&mut client, &load(r#", "on-conflict": "overwrite""#, r#"{"on-conflict": "error"}"#)), r#"{"total": 1}"#);
    assert_eq!(value(&mut client, &load(r#", "merge": {"a": 1.10}"#, r#"{"merge": {"b": 2}, "update": true}"#)), r#"{"total": 1}"#);
    assert_eq!(value(&mut client, "select row(resource, (select count(*) from patient_history)) from patient"), r#"("{""a"": 1.10}",1)"#);
}

test!("patterns of files are loaded in the order of their names", patterns);
fn patterns() {
    let directory = server_directory();
    for (name, lines) in [
        ("b.ndjson", "{\"id\":\"1\",\"from\":\"b\"}\n"),
        ("a.ndjson", "{\"id\":\"1\",\"from\":\"a\"}\n"),
        ("c.txt", "]"),
        ("x[1].ndjson", "{\"id\":\"2\"}\n"),
    ] {
        fs::write(directory.path().join(name), lines).unwrap();
    }
    fs::create_dir(directory.path().join("d.ndjson")).unwrap();
    let database = shared().database();
    let mut client = database.connect();
    let path = directory.path().display();
    assert_eq!(value(&mut client, &format!("bulk.load('{path}/?.ndjson', 'Patient')")), r#"{"total": 2}"#);
    assert_eq!(value(&mut client, "select resource->>'from' from patient"), "b");
    assert_eq!(value(&mut client, &format!("bulk.load('{path}/*.ndjson', 'Patient')")), r#"{"total": 3}"#);
    assert_eq!(value(&mut client, &format!("bulk.load('{path}/x[1].ndjson', 'Patient')")), r#"{"total": 1}"#);
    assert_eq!(value(&mut client, &format!("bulk.load('{{\"source\": [\"{path}/a*\", \"{path}/x*\"]}}', 'Patient')")), r#"{"total": 2}"#);
    assert_eq!(
        value(&mut client, "select request->'source' from bulk.job where id = bulk.last_load_id()"),
        format!("[\"file://{path}/a*\", \"file://{path}/x*\"]")
    );
    assert_eq!(failure(&mut client, &format!("select bulk.load('{path}/*.nothing', 'Patient')")).code, "58P01");
    // Links to directories lead nowhere, so that none leads round.
    symlink(".", directory.path().join("round")).unwrap();
    assert_eq!(value(&mut client, &format!("bulk.load('{path}/**/a.ndjson', 'Patient')")), r#"{"total": 1}"#);
}

test!("a walk through a large directory ends with its statement", walks);
fn walks() {
    let directory = server_directory();
    for n in 0..20_000 {
        fs::write(directory.path().join(format!("Patient-{n}.txt")), "").unwrap();
    }
    let database = shared().database();
    let mut client = database.connect();
    let path = directory.path().display();
    for call in [
        format!("bulk.load('{path}/**/none', 'Patient')"),
        format!("bulk.load('{path}/*/*/none', 'Patient')"),
        format!("bulk.load_from_bucket('{{\"bucket\": \"file://{path}\"}}')"),
    ] {
        assert_ne!(failure(&mut client, &format!("set statement_timeout = '5ms'; select {call}")).code, "58P01", "{call}");
        client.batch_execute("set statement_timeout = 0").unwrap();
    }
}
