//! Imports as tests ask for them.

use crate::support::source::Manner;
use crate::support::statement::value;
use postgres::Client;
use serde_json::{Value, json};
use std::fmt::Write;
use std::time::Duration;

/// As fast as it goes.
pub const PLAIN: Manner = Manner { most: usize::MAX, hangs: false, pause: Duration::ZERO, ranges: true };

/// Sends something and no more.
pub const HANGS: Manner = Manner { most: 400_000, hangs: true, pause: Duration::ZERO, ranges: true };

/// Patients as NDJSON; every seventh comes twice.
pub fn patients(count: u32) -> Vec<u8> {
    let mut lines = String::new();
    for n in 0..count {
        let id = if n % 7 == 6 { n - 3 } else { n };
        writeln!(lines, "{{\"id\":\"p{id}\",\"name\":[{{\"family\":\"F{n}\",\"given\":[\"{}\"]}}]}}", "ü".repeat(n as usize % 200))
            .unwrap();
    }
    lines.into_bytes()
}

/// Calls `bulk.import`: its status, the header and the body.
pub fn call(client: &mut Client, request: &Value) -> (i32, String, Value) {
    let row = client
        .query_one("select status, headers->>'content-location', body::text from bulk.import($1::text::jsonb)", &[&request.to_string()])
        .unwrap();
    (row.get(0), row.get::<_, Option<String>>(1).unwrap_or_default(), serde_json::from_str(row.get(2)).unwrap())
}

pub fn act(client: &mut Client, id: &str, action: &str) -> (i32, Value) {
    let (status, _, body) = call(client, &json!({"id": id, "action": action}));
    (status, body)
}

pub fn wait(client: &mut Client, id: &str) -> String {
    value(client, &format!("bulk.wait('{id}', '100 s')"))
}

/// Status and body of a function of a job's id.
pub fn status_of(client: &mut Client, function: &str, id: &str) -> (i32, Value) {
    let row = client.query_one(&format!("select status, body::text from bulk.{function}($1)"), &[&id]).unwrap();
    (row.get(0), serde_json::from_str(row.get(1)).unwrap())
}

pub fn patient_input(url: &str) -> Value {
    json!([{"resourceType": "Patient", "url": url}])
}

pub fn counts(client: &mut Client, id: &str) -> String {
    value(client, &format!("select concat_ws(' ', state, read, stored, skipped, rejected) from bulk.job where id = '{id}'"))
}

/// The rows of a table without what every import has of its own: an id may have several, in a history.
pub fn rows(client: &mut Client, table: &str) -> String {
    value(
        client,
        &format!(
            "select count(*) || ' ' || md5(string_agg(hash, '' order by id, hash)) from (select id, md5(concat_ws(' ', id, status, resource)) as hash from {table}) x"
        ),
    )
}
