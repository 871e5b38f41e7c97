//! Buckets of real servers: objects are loaded from them, with accounts whose secrets nobody sees.

use crate::support::cluster::{Database, checked, shared};
use crate::support::exports;
use crate::support::imports::{call, counts, patients, rows, wait};
use crate::support::servers::{AZURE_KEY, AzureServer, GcsServer, S3Server};
use crate::support::source::{File, gzip};
use crate::support::statement::{failure, value, wait_until};
use crate::support::trial::test;
use bulk::store::account::{AzureContainer, GcpAccount};
use bulk::store::interrupt::Interrupt;
use bulk::store::net::client_config::ClientConfig;
use bulk::store::net::ip_policy::Allowed;
use bulk::store::object::azure::Azure;
use bulk::store::object::gcs::Gcs;
use bulk::store::object::object_store::Store;
use postgres::Client;
use serde_json::json;
use std::fs;
use std::process::Command;

fn set(client: &mut Client, account: &serde_json::Value) {
    client.execute("select bulk.set_account($1::text::jsonb)", &[&account.to_string()]).unwrap();
}

fn account(server: &S3Server, id: &str, secret: &str) -> serde_json::Value {
    json!({"resourceType": "AwsAccount", "id": id, "region": "us-east-1", "access-key-id": "KEY", "secret-access-key": secret, "host": server.host()})
}

test!("objects of S3 are loaded and imported as files are", loaded);
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

test!("what a bucket's server refuses is said as it says it", refused);
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

/// Puts objects into a store.
fn fill(store: &dyn Store) {
    for (key, content) in [
        ("1/Patient.ndjson.gz", gzip(&crate::support::buckets::lines(0, 3000))),
        ("Patient-2.ndjson", crate::support::buckets::lines(3000, 3100)),
    ] {
        let mut upload = store.put(key).unwrap();
        upload.write(&content).unwrap();
        upload.finish().unwrap();
    }
}

/// An export to the storage that is set, its files loaded again, and deleted.
fn exported(client: &mut Client, url: &str) {
    let before = rows(client, "patient");
    let begun = exports::export(client, "system", &json!({"_type": "Patient", "_outputFormat": "application/fhir+ndjson+gzip"}), None);
    let manifest = exports::manifest(client, &begun);
    assert_eq!((&manifest["output"][0]["count"], manifest["output"].as_array().unwrap().len()), (&json!(3100), 1));
    let link = manifest["output"][0]["url"].as_str().unwrap();
    assert!(link.starts_with("http://127.0.0.1") && link.contains("Signature=") != link.contains("sig="), "{link}");
    let folder = value(client, "select max(folder) from bulk.export_run");
    client.batch_execute("truncate patient").unwrap();
    let again = crate::support::buckets::call(client, &json!({"bucket": url, "format": "fhir", "prefixes": [format!("{folder}/")]}));
    assert_eq!(again["new-files-count"], 1, "{again}");
    crate::support::buckets::done(client, &again);
    assert_eq!(rows(client, "patient").split(' ').next(), before.split(' ').next());
    assert_eq!(exports::cancel(client, &begun.id()).status, 202);
    wait_until("its files are deleted", || value(client, "select count(*) from bulk.export_run") == "0");
}

test!("containers of Azure and buckets of Google are loaded, listed and tried as those of S3", others);
fn others() {
    let database = shared().database();
    let mut client = database.connect();
    let (azure, gcs) = (AzureServer::start(&["lake"]).expect("make test provides it"), GcsServer::start().expect("make test provides it"));
    let key = String::from_utf8(checked(Command::new("openssl").args(["genpkey", "-algorithm", "RSA"])).stdout).unwrap();
    let access = ClientConfig { allowed_hosts: Allowed::parse("127.0.0.1"), ..ClientConfig::default() };
    let container = AzureContainer {
        storage: "devstoreaccount1".to_owned(),
        container: "lake".to_owned(),
        key: AZURE_KEY.to_owned(),
        host: Some(azure.host()),
    };
    fill(&Azure::new(&container, &access, &Interrupt::new()).unwrap());
    let account = GcpAccount {
        service_account_email: "a@b".to_owned(),
        private_key: key.clone(),
        private_key_id: String::new(),
        host: Some(gcs.host()),
    };
    fill(&Gcs::new("bucket", &account, &access, &Interrupt::new()).unwrap());
    for (scheme, bucket) in [("az", "lake"), ("gs", "bucket")] {
        assert_eq!(
            failure(&mut client, &format!("select bulk.load('{scheme}://{bucket}/1/Patient.ndjson.gz', 'Patient')")).message,
            "no account is known for it"
        );
    }
    set(&mut client, &json!({"resourceType": "AzureAccount", "id": "z", "key": "d3Jvbmc="}));
    let reference = json!({"id": "z", "resourceType": "AzureAccount"});
    set(
        &mut client,
        &json!({"resourceType": "AzureContainer", "id": "c", "storage": "devstoreaccount1", "container": "lake", "account": reference, "host": azure.host()}),
    );
    set(
        &mut client,
        &json!({"resourceType": "GcpServiceAccount", "id": "g", "service-account-email": "a@b", "private-key": key, "host": gcs.host()}),
    );
    let bucket = |client: &mut Client, url: &str| crate::support::buckets::call(client, &json!({"bucket": url}));
    let refused = bucket(&mut client, "az://lake");
    assert_eq!((&refused["error"]["source"], &refused["error"]["code"]), (&json!("azure"), &json!("InvalidAccount")));
    set(&mut client, &json!({"resourceType": "AzureAccount", "id": "z", "key": AZURE_KEY}));
    let missing = bucket(&mut client, "gs://nowhere");
    assert_eq!((&missing["error"]["source"], &missing["error"]["code"]), (&json!("gcp"), &json!("NoSuchKey")));
    for (url, setting, shown) in [
        (
            "az://lake",
            "set bulk.storage_backend = 'azure'; set bulk.storage_azure_container = 'c'",
            json!({"type": "azure", "bucket": "lake", "account": {"id": "c", "resourceType": "AzureContainer"}}),
        ),
        (
            "gs://bucket",
            "set bulk.storage_backend = 'gcp'; set bulk.storage_gcp_bucket = 'bucket'",
            json!({"type": "gcp", "bucket": "bucket", "account": {"id": "g", "resourceType": "GcpServiceAccount"}}),
        ),
    ] {
        client.batch_execute("drop table if exists patient, patient_history").unwrap();
        let answer = bucket(&mut client, url);
        assert_eq!((&answer["new-files-count"], &answer["ignored"]), (&json!(2), &json!([])), "{answer}");
        crate::support::buckets::done(&mut client, &answer);
        let said = format!(
            "select string_agg(concat_ws(' ', file, status, loaded, message), ', ' order by file) from bulk.loader_file where bucket = '{url}'"
        );
        assert_eq!(value(&mut client, &said), "1/Patient.ndjson.gz done 3000, Patient-2.ndjson done 100");
        assert_eq!(bucket(&mut client, url)["changed"], serde_json::Value::Null);
        let prefixed = crate::support::buckets::call(&mut client, &json!({"bucket": url, "prefixes": ["1/Pat", "Pa"]}));
        assert_eq!(prefixed["new-files-count"], 0);
        assert_eq!(value(&mut client, "select count(*) from patient"), "3100");
        client.batch_execute("truncate patient").unwrap();
        assert_eq!(value(&mut client, &format!("bulk.load('{url}/Patient-2.ndjson', 'Patient')")), r#"{"total": 100}"#);
        assert_eq!(
            call(&mut client, &json!({"id": url, "inputs": [{"resourceType": "Patient", "url": format!("{url}/1/Patient.ndjson.gz")}]})).0,
            200
        );
        assert_eq!(wait(&mut client, url), "done", "{}", value(&mut client, &format!("select message from bulk.job where id = '{url}'")));
        assert_eq!(value(&mut client, "select count(*) from patient"), "3100");
        client.batch_execute(setting).unwrap();
        exported(&mut client, url);
        let healthy: serde_json::Value = serde_json::from_str(&value(&mut client, "bulk.storage_healthcheck()")).unwrap();
        assert_eq!(healthy, json!({"message": "ok", "storage": shown}));
    }
    client.batch_execute("set bulk.storage_backend = 'azure'; set bulk.storage_azure_container = ''").unwrap();
    let said = "bulk.storage_healthcheck()->'error'->>'message'";
    assert_eq!(value(&mut client, said), "Azure container not specified");
    client.batch_execute("set bulk.storage_azure_container = 'none'").unwrap();
    assert_eq!(value(&mut client, said), "account not found");
    // Accounts that are given with the call.
    client.batch_execute("delete from bulk.loader_file; truncate patient").unwrap();
    client.batch_execute("select bulk.drop_account(resource_type, id) from bulk.storage_account").unwrap();
    for (url, given) in [
        ("az://lake", json!({"storage": "devstoreaccount1", "key": AZURE_KEY, "host": azure.host()})),
        ("gs://bucket", json!({"service-account-email": "a@b", "private-key": key, "host": gcs.host()})),
    ] {
        client.batch_execute("truncate patient").unwrap();
        let answer = crate::support::buckets::call(&mut client, &json!({"bucket": url, "account": given}));
        crate::support::buckets::done(&mut client, &answer);
        assert_eq!(value(&mut client, "select count(*) from patient"), "3100");
    }
}

test!("accounts are kept by administrators, and their secrets from everybody", accounts);
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
        // What everybody may read must not be a place for secrets.
        (
            r#"{"resourceType": "AwsAccount", "id": "x", "region": "r", "access-key-id": "k", "secret-access-key": "s", "host": "http://u:TOPSECRET@h"}"#,
            "host",
        ),
        (
            r#"{"resourceType": "GcpServiceAccount", "id": "x", "service-account-email": "e", "private-key": "k", "host": "https://h/?key=TOPSECRET"}"#,
            "host",
        ),
        (
            r#"{"resourceType": "AzureContainer", "id": "x", "storage": "s", "container": "c", "account": {"id": "z"}, "host": "https://h/#TOPSECRET"}"#,
            "host",
        ),
        (
            r#"{"resourceType": "AzureContainer", "id": "x", "storage": "s", "container": "c", "account": {"id": "z", "key": "TOPSECRET"}}"#,
            "\"key\"",
        ),
        (
            r#"{"resourceType": "AzureContainer", "id": "x", "storage": "s", "container": "c", "account": {"id": {"key": "TOPSECRET"}}}"#,
            "account",
        ),
    ] {
        let failed = failure(&mut client, &format!("select bulk.set_account('{wrong}')"));
        assert!(failed.message.contains(said) && !format!("{failed:?}").contains("TOPSECRET"), "{wrong}: {failed:?}");
        if said == "region" {
            assert!(failed.hint.contains("resourceType, id, key, meta"), "{failed:?}");
        }
    }
    let dump = checked(database.cluster.client("pg_dump", name).arg("--no-sync")).stdout;
    let dump = String::from_utf8_lossy(&dump);
    assert!(dump.contains("service-account-email") && !dump.contains("TOPSECRET"));
    client.batch_execute(&format!("create role admin_{name}; grant bulk_admin to admin_{name}; set role admin_{name}")).unwrap();
    assert_eq!(failure(&mut client, "select * from bulk_internal.storage_secret").code, "42501");
    assert_eq!(value(&mut client, "select count(*) from bulk.storage_account"), "4");
    set(&mut client, &all[2]);
    client.batch_execute("select bulk.drop_account('AzureAccount', 'z')").unwrap();
    assert_eq!(failure(&mut client, "select bulk.drop_account('AzureAccount', 'z')").code, "42704");
    client.batch_execute(&format!("reset role; create role plain_{name}; set role plain_{name}")).unwrap();
    for refused in [
        "bulk.drop_account('AwsAccount', 'a')",
        "bulk.set_account('{}')",
        "count(*) from bulk.storage_account",
        "count(*) from bulk_internal.storage_secret",
    ] {
        assert_eq!(failure(&mut client, &format!("select {refused}")).code, "42501", "{refused}");
    }
    client.batch_execute(&format!("reset role; grant pg_read_all_data, pg_write_all_data to plain_{name}; set role plain_{name}")).unwrap();
    assert_eq!(value(&mut client, "select count(*) from bulk_internal.storage_secret"), "0");
    assert_eq!(value(&mut client, "select count(*) from bulk_internal.job_secret"), "0");
    for refused in ["update bulk_internal.storage_account set account = '{}'", "delete from bulk_internal.storage_account"] {
        assert_eq!(failure(&mut client, refused).code, "42501", "{refused}");
    }
    assert_eq!(failure(&mut client, "insert into bulk_internal.storage_account values ('AwsAccount', 'mine', '{}')").code, "42501");
    client.batch_execute("reset role").unwrap();
    assert_eq!(value(&mut client, "select count(*) from bulk.storage_account where account <> '{}'"), "3");
    assert_eq!(value(&mut client, "select count(*) from bulk_internal.storage_secret"), "3");
    restored(&database, &dump);
}

/// In a copy of the database the secrets are missed.
fn restored(database: &Database, dump: &str) {
    let copy = format!("{}_copy", database.name);
    database.cluster.connect("postgres", "postgres").batch_execute(&format!("create database {copy}")).unwrap();
    crate::support::cluster::replay(&mut database.cluster.psql(&copy), dump.as_bytes());
    let mut client = database.cluster.connect(&copy, "postgres");
    assert_eq!(failure(&mut client, "select bulk.load('s3://bucket/p.ndjson', 'Patient')").code, "42704");
}
