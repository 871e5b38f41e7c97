//! Loads of buckets as tests ask for them.

use crate::support::servers::S3Server;
use crate::support::statement::value;
use postgres::Client;
use serde_json::{Value, json};
use std::fs;

/// Patients of distinct ids.
pub fn lines(from: u32, to: u32) -> Vec<u8> {
    (from..to)
        .map(|n| format!("{{\"id\": \"p-{n}\", \"birthDate\": \"19{:02}-01-01\", \"name\": [{{\"family\": \"F{n}\"}}]}}\n", n % 100))
        .collect::<String>()
        .into()
}

/// Puts an object where the server finds it.
pub fn put(server: &S3Server, key: &str, content: &[u8]) {
    let path = server.bucket("bucket").join(key);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// The answer to a call, whose account is given with it.
pub fn load(client: &mut Client, host: &str, more: Value) -> Value {
    let mut params = json!({
        "bucket": "s3://bucket",
        "account": {"access-key-id": "KEY", "secret-access-key": "SECRET", "region": "us-east-1", "host": host},
    });
    params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    call(client, &params)
}

pub fn call(client: &mut Client, params: &Value) -> Value {
    let row = client.query_one("select bulk.load_from_bucket($1::text::jsonb)::text", &[&params.to_string()]).unwrap();
    serde_json::from_str(row.get(0)).unwrap()
}

/// Waits for the load that an answer tells of.
pub fn done(client: &mut Client, answer: &Value) {
    let id = answer["id"].as_str().unwrap_or_else(|| panic!("{answer}"));
    assert_eq!(value(client, &format!("bulk.wait('{id}', '100 s')")), "completed", "{answer}");
}

pub fn status(client: &mut Client, bucket: &str) -> Value {
    serde_json::from_str(&value(client, &format!("bulk.load_from_bucket_status('{{\"bucket\": \"{bucket}\"}}')"))).unwrap()
}
