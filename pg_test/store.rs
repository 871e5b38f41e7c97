//! Buckets of real servers: objects are loaded from them, with accounts whose secrets nobody sees.

use crate::cluster::{Database, checked, failure, shared, value};
use crate::import::{call, counts, patients, rows, wait};
use crate::servers::S3Server;
use crate::source::{File, gzip};
use crate::test;
use libtest_mimic::Trial;
use postgres::Client;
use serde_json::json;
use std::fs;

pub fn tests() -> Vec<Trial> {
    vec![
        test("objects of S3 are loaded and imported as files are", loaded),
        test("what a bucket's server refuses is said as it says it", refused),
        test("accounts are kept by administrators, and their secrets from everybody", accounts),
    ]
}

fn set(client: &mut Client, account: &serde_json::Value) {
    client.execute("select bulk.set_account($1::text::jsonb)", &[&account.to_string()]).unwrap();
}

fn account(server: &S3Server, id: &str, secret: &str) -> serde_json::Value {
    json!({"resourceType": "AwsAccount", "id": id, "region": "us-east-1", "access-key-id": "KEY", "secret-access-key": secret, "host": server.host()})
}

fn loaded() {
    let database = shared().database();
    let mut client = database.connect();
    let server = S3Server::start(&["bucket"]).expect("make test provides it");
    let lines = patients(20_000);
    let odd = "dir/a b+ä%&=?#~.ndjson.gz";
    fs::create_dir(server.bucket("bucket").join("dir")).unwrap();
    fs::write(server.bucket("bucket").join(odd), gzip(&lines)).unwrap();
    fs::write(server.bucket("bucket").join("plain.ndjson"), &lines).unwrap();
    let file = File::new(&lines);
    client.batch_execute(&format!("select bulk.load('{}', 'Patient')", file.url())).unwrap();
    let expected = rows(&mut client, "patient");
    set(&mut client, &account(&server, "store", "SECRET"));
    client.batch_execute("drop table patient, patient_history").unwrap();
    assert_eq!(value(&mut client, &format!("bulk.load('s3://bucket/{odd}', 'Patient')")), r#"{"total": 20000}"#);
    assert_eq!(rows(&mut client, "patient"), expected);
    // In ranges, by workers, who look the account up by themselves.
    client.batch_execute("drop table patient, patient_history; set bulk.range_size = '256kB'").unwrap();
    let inputs = json!([{"resourceType": "Patient", "url": "s3://bucket/plain.ndjson"}]);
    assert_eq!(call(&mut client, &json!({"id": "s3", "inputs": inputs})).0, 200);
    assert_eq!(wait(&mut client, "s3"), "done", "{}", value(&mut client, "select message from bulk.job where id = 's3'"));
    assert_eq!(counts(&mut client, "s3"), "done 20000 20000 0 0");
    assert_eq!(rows(&mut client, "patient"), expected);
    assert_eq!(value(&mut client, "select count(*) > 2 from bulk.job_file where job_id = 's3'"), "true");
}

fn refused() {
    let database = shared().database();
    let mut client = database.connect();
    let server = S3Server::start(&["bucket"]).expect("make test provides it");
    fs::write(server.bucket("bucket").join("p.ndjson"), patients(3)).unwrap();
    let load = |key: &str| format!("select bulk.load('s3://{key}', 'Patient')");
    let none = failure(&mut client, &load("bucket/p.ndjson"));
    assert_eq!((none.code.as_str(), none.message.as_str()), ("42704", "no account is known for it"));
    assert!(none.hint.contains("bulk.set_account"));
    set(&mut client, &account(&server, "wrong", "WRONG"));
    let wrong = failure(&mut client, &load("bucket/p.ndjson"));
    assert_eq!((wrong.code.as_str(), wrong.message.as_str()), ("08004", "store refused the request: SignatureDoesNotMatch"));
    set(&mut client, &account(&server, "right", "SECRET"));
    let several = failure(&mut client, &load("bucket/p.ndjson"));
    assert_eq!(several.code, "42P08");
    client.batch_execute("set bulk.storage_aws_account = 'right'").unwrap();
    client.batch_execute(&load("bucket/p.ndjson")).unwrap();
    let missing = failure(&mut client, &load("bucket/none.ndjson"));
    assert_eq!((missing.code.as_str(), missing.message.as_str()), ("58P01", "store refused the request: NoSuchKey"));
    assert_eq!(missing.detail, "Source \"s3://bucket/none.ndjson\".");
    client.batch_execute("set bulk.storage_aws_account = 'other'").unwrap();
    assert_eq!(failure(&mut client, &load("bucket/p.ndjson")).message, "there is no AwsAccount \"other\"");
    for key in ["bucket", "bucket/", "/p.ndjson", "bucket/../p.ndjson", "b@c/p.ndjson", "bucket/p?s=SECRET"] {
        let failed = failure(&mut client, &load(key));
        assert!(matches!(failed.code.as_str(), "22023" | "42704") && !format!("{failed:?}").contains("SECRET"), "{key}: {failed:?}");
    }
    // The server's address is one that a superuser allows, or not.
    client.batch_execute("set bulk.storage_aws_account = 'right'; set bulk.allowed_hosts = ''").unwrap();
    assert_eq!(failure(&mut client, &load("bucket/p.ndjson")).code, "42501");
    let name = &database.name;
    client.batch_execute(&format!("reset bulk.allowed_hosts; create role plain_{name}; set role plain_{name}")).unwrap();
    assert_eq!(failure(&mut client, &load("bucket/p.ndjson")).code, "42501");
}

fn accounts() {
    let database = shared().database();
    let mut client = database.connect();
    let name = &database.name;
    let all = [
        json!({"resourceType": "AwsAccount", "id": "a", "region": "r", "access-key-id": "k", "secret-access-key": "TOPSECRET", "path-style": true}),
        json!({"resourceType": "GcpServiceAccount", "id": "g", "service-account-email": "e", "private-key": "TOPSECRET"}),
        json!({"resourceType": "AzureAccount", "id": "z", "key": "TOPSECRET", "meta": {}}),
        json!({"resourceType": "AzureContainer", "id": "c", "storage": "s", "container": "c", "account": {"id": "z", "resourceType": "AzureAccount"}}),
    ];
    all.iter().for_each(|account| set(&mut client, account));
    set(
        &mut client,
        &json!({"resourceType": "AwsAccount", "id": "a", "region": "new", "access-key-id": "k", "secret-access-key": "TOPSECRET"}),
    );
    assert_eq!(
        value(
            &mut client,
            "select string_agg(resource_type || ' ' || id || ' ' || account, ', ' order by resource_type) from bulk.storage_account where resource_type ~ 'A[wz]'"
        ),
        r#"AwsAccount a {"region": "new", "access-key-id": "k"}, AzureAccount z {}, AzureContainer c {"account": {"id": "z", "resourceType": "AzureAccount"}, "storage": "s", "container": "c"}"#
    );
    for (wrong, said) in [
        ("{}", "resourceType"),
        (r#"{"resourceType": "Patient", "id": "a"}"#, "resourceType"),
        (r#"{"resourceType": "AzureAccount", "key": "TOPSECRET"}"#, "id"),
        (r#"{"resourceType": "AzureAccount", "id": "x"}"#, "key"),
        (r#"{"resourceType": "AzureAccount", "id": "x", "key": "TOPSECRET", "region": "r"}"#, "region"),
        (r#"{"resourceType": "AzureAccount", "id": "x", "key": 5}"#, "key"),
        (
            r#"{"resourceType": "AwsAccount", "id": "x", "region": "r", "access-key-id": "k", "secret-access-key": "TOPSECRET", "use-ssl": "no"}"#,
            "use-ssl",
        ),
    ] {
        let failed = failure(&mut client, &format!("select bulk.set_account('{wrong}')"));
        assert!(failed.message.contains(said) && !format!("{failed:?}").contains("TOPSECRET"), "{wrong}: {failed:?}");
    }
    let dump = checked(database.cluster.client("pg_dump", name).arg("--no-sync")).stdout;
    let dump = String::from_utf8_lossy(&dump);
    assert!(dump.contains("service-account-email") && !dump.contains("TOPSECRET"));
    client.batch_execute(&format!("create role admin_{name}; grant bulk_admin to admin_{name}; set role admin_{name}")).unwrap();
    assert_eq!(failure(&mut client, "select * from bulk.storage_secret").code, "42501");
    assert_eq!(value(&mut client, "select count(*) from bulk.storage_account"), "4");
    set(&mut client, &all[2]);
    client.batch_execute("select bulk.drop_account('AzureAccount', 'z')").unwrap();
    assert_eq!(failure(&mut client, "select bulk.drop_account('AzureAccount', 'z')").code, "42704");
    client.batch_execute(&format!("reset role; create role plain_{name}; set role plain_{name}")).unwrap();
    for refused in [
        "bulk.drop_account('AwsAccount', 'a')",
        "bulk.set_account('{}')",
        "count(*) from bulk.storage_account",
        "count(*) from bulk.storage_secret",
    ] {
        assert_eq!(failure(&mut client, &format!("select {refused}")).code, "42501", "{refused}");
    }
    client.batch_execute(&format!("reset role; grant pg_read_all_data, pg_write_all_data to plain_{name}; set role plain_{name}")).unwrap();
    assert_eq!(value(&mut client, "select count(*) from bulk.storage_secret"), "0");
    assert_eq!(value(&mut client, "select count(*) from bulk.job_secret"), "0");
    client.batch_execute("update bulk.storage_account set account = '{}'; delete from bulk.storage_account").unwrap();
    assert_eq!(failure(&mut client, "insert into bulk.storage_account values ('AwsAccount', 'mine', '{}')").code, "42501");
    client.batch_execute("reset role").unwrap();
    assert_eq!(value(&mut client, "select count(*) from bulk.storage_account where account <> '{}'"), "3");
    assert_eq!(value(&mut client, "select count(*) from bulk.storage_secret"), "3");
    restored(&database, &dump);
}

/// In a copy of the database the secrets are missed.
fn restored(database: &Database, dump: &str) {
    let copy = format!("{}_copy", database.name);
    database.cluster.connect("postgres", "postgres").batch_execute(&format!("create database {copy}")).unwrap();
    crate::cluster::replay(&mut database.cluster.psql(&copy), dump.as_bytes());
    let mut client = database.cluster.connect(&copy, "postgres");
    assert_eq!(failure(&mut client, "select bulk.load('s3://bucket/p.ndjson', 'Patient')").code, "42704");
}
