//! The Bulk Data IG's checks of exports. Tests that are named are those of `export.rs`.

use crate::support::cluster::shared;
use crate::support::exports::{bucket, export, manifest, read, set, some, status};
use crate::support::servers::S3Server;
use crate::support::statement::value;
use crate::support::trial::test;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The checks of section 6 of the specification: tested here or elsewhere, or why not.
const CHECKS: [(&str, &str); 27] = [
    ("kick-off: Accept and Prefer headers", "tested: of the gateway and PostgREST; both may be missing"),
    ("kick-off: endpoints of all three levels, GET and POST", "tested: parameters, group"),
    ("kick-off: 202 with an absolute Content-Location", "tested here"),
    ("kick-off: errors have an OperationOutcome", "tested: refused"),
    ("kick-off: 429 with Retry-After", "tested: refused"),
    ("kick-off: Prefer separate-export-status", "out of scope: optional, and of the HTTP layer"),
    ("_outputFormat in three spellings", "tested here"),
    ("_since", "tested: chain, parameters; of new members of a Group what is older is not exported"),
    ("_until", "tested: parameters"),
    ("_type", "tested: parameters; types outside of the compartment are left out and said"),
    ("_elements with SUBSETTED", "tested: parameters"),
    ("patient", "tested: parameters, group"),
    ("includeAssociatedData, organizeOutputBy, allowPartialManifests", "out of scope: optional; refused with 422, tested here"),
    ("_typeFilter", "tested: parameters"),
    ("data: levels", "tested: the compartments"),
    ("data: only the most recent version", "tested: deleted, snapshot"),
    ("data: Provenance of what is exported", "out of scope: of patients it is in their compartments, of others a system export has all"),
    ("transactionTime", "tested: chain"),
    ("Attachment.url absolute", "out of scope: resources are exported as they are stored"),
    ("deleted", "tested: deleted"),
    ("status: 202 with X-Progress and Retry-After", "tested: refused"),
    ("status: 429 for too frequent polling", "out of scope: optional, and of the HTTP layer"),
    ("status: failed with an OperationOutcome", "tested: the faults"),
    ("status: partial success is 200 with error files", "tested: broken"),
    ("manifest", "tested here"),
    ("DELETE", "tested: refused, rights"),
    ("files: one type, count, NDJSON", "tested: everywhere; links are signed, so no token is needed"),
];

test!("the checks of the Bulk Data IG hold, or it is said why not", guide);
fn guide() {
    assert!(CHECKS.iter().all(|(_, how)| how.starts_with("tested") || how.starts_with("out of scope: ")));
    let database = shared().database();
    let mut client = database.connect();
    let server = S3Server::start(&["bucket"]).expect("make test provides it");
    bucket(&mut client, &server.host());
    some(&mut client);
    client.batch_execute("set bulk.base_url = 'https://example.org/'").unwrap();
    for format in ["application/fhir+ndjson", "application/ndjson", "ndjson"] {
        let begun = export(&mut client, "patient", &json!({"_outputFormat": format}), None);
        let location = begun.headers["content-location"].as_str().unwrap();
        assert_eq!((begun.status, location), (202, format!("https://example.org/fhir/$export-status/{}", begun.id()).as_str()));
        assert_eq!(value(&mut client, &format!("bulk.wait('{}')", begun.id())), "completed");
        let first = status(&mut client, &begun.id());
        assert_eq!((first.status, first.headers["content-type"].as_str()), (200, Some("application/json")));
        assert!(first.headers["expires"].as_str().unwrap().ends_with(" GMT"));
        let keys: BTreeSet<String> = first.body.as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys, set(&["status", "transactionTime", "request", "requiresAccessToken", "output", "deleted", "error"]));
        assert_eq!(first.body["request"], format!("https://example.org/fhir/Patient/$export?_outputFormat={}", format.replace('+', "%2B")));
        for file in first.body["output"].as_array().unwrap() {
            let keys: BTreeSet<String> = file.as_object().unwrap().keys().cloned().collect();
            assert_eq!(keys, set(&["type", "url", "count"]));
            assert!(file["url"].as_str().unwrap().starts_with("http://127.0.0.1"));
        }
        assert!(lines_of_patients(&server, &first.body) >= 2);
    }
    // Another storage than the settings name.
    client.batch_execute("set bulk.storage_backend = ''; set bulk.storage_aws_bucket = ''").unwrap();
    let elsewhere = json!({"_type": "Organization", "_aidbox.storageProvider": "aws", "_aidbox.storageBucket": "bucket",
        "_aidbox.storageAccount": "AwsAccount/store"});
    let begun = export(&mut client, "system", &elsewhere, None);
    assert_eq!(manifest(&mut client, &begun)["output"][0]["count"], 1);
    bucket(&mut client, &server.host());
    for name in ["includeAssociatedData", "organizeOutputBy", "allowPartialManifests"] {
        let refused = export(&mut client, "system", &json!({ name: "x" }), None);
        assert_eq!((refused.status, &refused.body["issue"][0]["code"]), (422, &json!("unmatched-element-in-closed-slicing")));
    }
}

fn lines_of_patients(server: &S3Server, manifest: &Value) -> usize {
    let files = manifest["output"].as_array().unwrap().iter().filter(|file| file["type"] == "Patient");
    let key = |url: &str| url.split_once("/bucket/").unwrap().1.split('?').next().unwrap().to_owned();
    files.map(|file| read(&server.bucket("bucket").join(key(file["url"].as_str().unwrap()))).lines().count()).sum()
}
