//! Exports as tests ask for them, and what their files hold.

use crate::support::cluster::{checked, server_directory};
use crate::support::statement::value;
use postgres::Client;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

/// A directory that is the storage of this session's exports.
pub fn directory(client: &mut Client) -> TempDir {
    let directory = server_directory();
    let path = directory.path().display();
    client.batch_execute(&format!("set bulk.storage_backend = 'file'; set bulk.storage_file_directory = '{path}'")).unwrap();
    directory
}

/// The same of an S3 server, as the host says.
pub fn bucket(client: &mut Client, host: &str) {
    let account = json!({"resourceType": "AwsAccount", "id": "store", "region": "us-east-1", "access-key-id": "KEY",
        "secret-access-key": "SECRET", "host": host});
    client.execute("select bulk.set_account($1::text::jsonb)", &[&account.to_string()]).unwrap();
    client.batch_execute("set bulk.storage_backend = 'aws'; set bulk.storage_aws_bucket = 'bucket'").unwrap();
}

#[derive(Debug)]
pub struct Answer {
    pub status: i32,
    pub headers: Value,
    pub body: Value,
}

impl Answer {
    /// Of the export that it tells of.
    pub fn id(&self) -> String {
        let location = self.headers["content-location"].as_str().unwrap_or_else(|| panic!("{self:?}"));
        location.rsplit('/').next().unwrap().to_owned()
    }
}

pub fn export(client: &mut Client, level: &str, params: &Value, group: Option<&str>) -> Answer {
    let group = group.map_or("null".to_owned(), literal);
    answer(client, &format!("bulk.export('{level}', {}, {group})", literal(&params.to_string())))
}

pub fn status(client: &mut Client, id: &str) -> Answer {
    answer(client, &format!("bulk.export_status({})", literal(id)))
}

pub fn cancel(client: &mut Client, id: &str) -> Answer {
    answer(client, &format!("bulk.export_cancel({})", literal(id)))
}

/// The manifest of an export that is waited for.
pub fn manifest(client: &mut Client, answer: &Answer) -> Value {
    assert_eq!(answer.status, 202, "{answer:?}");
    let id = answer.id();
    let state = value(client, &format!("bulk.wait('{id}', '100 s')"));
    assert_eq!(state, "completed", "{}", value(client, &format!("select message from bulk.job where id = '{id}'")));
    let status = status(client, &id);
    assert_eq!(status.status, 200, "{status:?}");
    status.body
}

/// Exports and reads all files.
pub fn exported(client: &mut Client, level: &str, params: Value, group: Option<&str>) -> BTreeMap<String, Vec<Value>> {
    let begun = export(client, level, &params, group);
    let manifest = manifest(client, &begun);
    lines(&manifest, "output")
}

/// A file's text, whether it is gzipped or not.
pub fn read(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return String::from_utf8(bytes).unwrap();
    }
    // Much faster than ours, as tests are built.
    String::from_utf8(checked(Command::new("gzip").arg("-dc").arg(path)).stdout).unwrap()
}

/// The lines of the files of a manifest by their types. Each file has as many as it says, of the type that it says.
pub fn lines(manifest: &Value, kind: &str) -> BTreeMap<String, Vec<Value>> {
    let mut found: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for file in manifest[kind].as_array().unwrap() {
        let text = read(&path(file["url"].as_str().unwrap()));
        assert!(text.ends_with('\n'));
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(json!(lines.len()), file["count"], "{file}");
        assert!(lines.iter().all(|line| line["resourceType"] == file["type"]), "{file}");
        found.entry(file["type"].as_str().unwrap().to_owned()).or_default().extend(lines);
    }
    found
}

/// How many resources there are in the files of a manifest, each once, and as many as it says: without reading all of them.
pub fn count(manifest: &Value) -> usize {
    let mut names = BTreeSet::new();
    for file in manifest["output"].as_array().unwrap() {
        let text = read(&path(file["url"].as_str().unwrap()));
        assert_eq!(json!(text.lines().count()), file["count"], "{file}");
        for line in text.lines() {
            let id = line.strip_prefix("{\"id\":\"").and_then(|rest| rest.split('"').next()).unwrap_or_else(|| panic!("{line}"));
            assert!(line.ends_with('}') && names.insert(format!("{} {id}", file["type"])), "{line}");
        }
    }
    names.len()
}

/// `Type/id` of resources.
pub fn names(exported: &BTreeMap<String, Vec<Value>>) -> BTreeSet<String> {
    let all: Vec<String> = exported
        .iter()
        .flat_map(|(kind, lines)| lines.iter().map(move |line| format!("{kind}/{}", line["id"].as_str().unwrap())))
        .collect();
    let names: BTreeSet<String> = all.iter().cloned().collect();
    assert_eq!(names.len(), all.len(), "each resource once");
    names
}

pub fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Patients and what belongs to them.
pub fn some(client: &mut Client) {
    let reference = |id: &str| json!({"reference": format!("Patient/{id}")});
    let patients: Vec<Value> = ["a", "b", "c"]
        .iter()
        .map(|id| json!({"resourceType": "Patient", "id": id, "active": true, "name": [{"family": id}], "birthDate": "2000-01-01"}))
        .collect();
    load(client, "Patient", &patients);
    let observation = |id: &str, of: &str, code: &str| {
        json!({"resourceType": "Observation", "id": id, "status": "final", "code": {"coding": [{"system": "s", "code": code}]},
            "subject": reference(of), "valueString": "x"})
    };
    load(client, "Observation", &[observation("oa", "a", "x"), observation("ob", "b", "y"), observation("oc", "c", "x")]);
    let performed =
        json!({"resourceType": "Observation", "id": "by-b", "status": "final", "code": {"text": "x"}, "performer": [reference("b")]});
    let dangling = observation("od", "nobody", "x");
    load(client, "Observation", &[performed, dangling]);
    load(client, "Organization", &[json!({"resourceType": "Organization", "id": "o"})]);
    let member = |id: &str, inactive: bool| json!({"entity": reference(id), "inactive": inactive});
    load(
        client,
        "Group",
        &[
            json!({"resourceType": "Group", "id": "g", "type": "person", "actual": true, "member": [member("a", false), member("b", true), {"entity": reference("c")}],
                "characteristic": [{"code": {"text": "x"}, "valueBoolean": true, "exclude": false}]}),
            json!({"resourceType": "Group", "id": "other", "type": "person", "actual": true, "member": [member("a", false)]}),
            json!({"resourceType": "Group", "id": "empty", "type": "person", "actual": true}),
        ],
    );
}

pub fn answer(client: &mut Client, call: &str) -> Answer {
    let row = client.query_one(&format!("select status, headers::text, coalesce(body, 'null')::text from {call}"), &[]).unwrap();
    let json = |column: usize| serde_json::from_str(row.get(column)).unwrap();
    Answer { status: row.get(0), headers: json(1), body: json(2) }
}

pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

pub fn path(url: &str) -> PathBuf {
    PathBuf::from(url.strip_prefix("file://").unwrap_or_else(|| panic!("{url}")))
}

pub fn load(client: &mut Client, resource_type: &str, lines: &[Value]) {
    let file = crate::support::source::File::new(lines.iter().map(|line| format!("{line}\n")).collect::<String>().as_bytes());
    client.batch_execute(&format!("select bulk.load('{}', '{resource_type}', fhir => true)", file.url())).unwrap();
}
