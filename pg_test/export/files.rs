//! Exports: what is in the files, and what is answered.

use crate::support::cluster::{data, shared};
use crate::support::exports::{bucket, cancel, directory, export, exported, lines, literal, load, manifest, names, set, some, status};
use crate::support::memory_peak::rss_anon;
use crate::support::proxy::{Proxy, Trouble};
use crate::support::servers::S3Server;
use crate::support::statement::{failure, value, wait_until};
use crate::support::trial::{SERVER, parts, test};
use postgres::Client;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

parts!(SERVER);

test!("exported files loaded again give the rows that were exported", round_trip, Data);
fn round_trip() {
    let database = shared().database();
    let mut client = database.connect();
    let server = S3Server::start(&["bucket"]).expect("make test provides it");
    bucket(&mut client, &server.host());
    let mut types = Vec::new();
    for file in fs::read_dir(data()).unwrap() {
        let path = file.unwrap().path();
        if let Some(name) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".ndjson.gz")) {
            client.batch_execute(&format!("select bulk.load('{}', '{name}', fhir => true)", path.display())).unwrap();
            types.push(name.to_owned());
        }
    }
    assert_eq!(types.len(), 16);
    client.batch_execute("create schema again").unwrap();
    for (format, ending) in [("application/fhir+ndjson+gzip", ".ndjson.gz"), ("ndjson", ".ndjson")] {
        let begun = export(&mut client, "system", &json!({"_outputFormat": format}), None);
        let manifest = manifest(&mut client, &begun);
        let sum: u64 = manifest["output"].as_array().unwrap().iter().map(|file| file["count"].as_u64().unwrap()).sum();
        assert_eq!(sum, 189_111);
        assert_eq!((&manifest["error"], &manifest["deleted"], &manifest["requiresAccessToken"]), (&json!([]), &json!([]), &json!(false)));
        client.batch_execute("set search_path = again").unwrap();
        for file in manifest["output"].as_array().unwrap() {
            let (kind, url) = (file["type"].as_str().unwrap(), file["url"].as_str().unwrap());
            assert!(url.contains(&format!("{ending}?")) && url.contains("X-Amz-Signature="), "{url}");
            let loaded = value(&mut client, &format!("bulk.load({}, '{kind}', fhir => true)", literal(url)));
            assert_eq!(loaded, format!("{{\"total\": {}}}", file["count"]));
        }
        client.batch_execute("set search_path = public").unwrap();
        for name in &types {
            let differing = format!(
                "select count(*) from public.{name} a full join again.{name} b using (id) where a.resource is distinct from b.resource"
            );
            // What the server owns comes with the line: createdAt alone is not the server's own in FHIR format.
            assert_eq!(value(&mut client, &differing), "0", "{name}");
        }
        client.batch_execute("drop schema again cascade; create schema again").unwrap();
    }
    // What lies in the bucket is what the manifests name.
    let folders: Vec<_> = fs::read_dir(server.bucket("bucket")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(folders.iter().all(|name| name.to_str().unwrap().len() == 20 + 1 + 36), "{folders:?}");
}

/// Numbers that repeat.
fn next(state: &mut u64) -> u64 {
    crate::support::faults::next(state)
}

/// Says stop when it is dropped, whatever else fails.
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

test!("an export beside a writer is exactly what had committed at one moment", snapshot);
fn snapshot() {
    let database = shared().database();
    let mut client = database.connect();
    let _storage = directory(&mut client);
    let people: Vec<Value> =
        (0..2000).map(|n| json!({"resourceType": "Patient", "id": format!("p{n}"), "multipleBirthInteger": 0})).collect();
    let values: Vec<Value> = (0..2000)
        .map(|n| json!({"resourceType": "Basic", "id": format!("b{n}"), "code": {"text": "0"}, "created": "x".repeat(3000)}))
        .collect();
    load(&mut client, "Patient", &people);
    load(&mut client, "Basic", &values);
    // Each transaction changes one of each, to its own number.
    let (written, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let writer = {
        let mut writer = database.connect();
        let (written, stop) = (Arc::clone(&written), Arc::clone(&stop));
        std::thread::spawn(move || {
            let mut state = 1;
            for count in 1..=1_000_000_u64 {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let (p, b) = (next(&mut state) % 2000, next(&mut state) % 2000);
                let text = format!(
                    "begin; update patient set ts = now(), resource = jsonb_set(resource, '{{multipleBirth,integer}}', '{count}') where id = 'p{p}';
                     update basic set ts = now(), resource = jsonb_set(resource, '{{code,text}}', '\"{count}\"') where id = 'b{b}'; commit"
                );
                writer.batch_execute(&text).unwrap();
                written.store(count, Ordering::Relaxed);
            }
        })
    };
    let stopping = Stop(stop);
    let mut seen = BTreeSet::new();
    for _ in 0..5 {
        let before = written.load(Ordering::Relaxed);
        wait_until("the writer goes on", || written.load(Ordering::Relaxed) > before + 20);
        let exported = exported(&mut client, "system", json!({}), None);
        let number =
            |line: &Value| line["multipleBirthInteger"].as_u64().unwrap_or_else(|| line["code"]["text"].as_str().unwrap().parse().unwrap());
        let last = exported.values().flatten().map(number).max().unwrap();
        seen.insert(last);
        // The same changes up to that one.
        let (mut state, mut expected) = (1, BTreeMap::new());
        for count in 1..=last {
            let (p, b) = (next(&mut state) % 2000, next(&mut state) % 2000);
            expected.insert(format!("p{p}"), count);
            expected.insert(format!("b{b}"), count);
        }
        for line in exported.values().flatten() {
            let id = line["id"].as_str().unwrap();
            assert_eq!(number(line), expected.get(id).copied().unwrap_or(0), "{id} at {last}");
        }
        assert_eq!(exported.values().map(Vec::len).sum::<usize>(), 4000);
    }
    drop(stopping);
    writer.join().unwrap();
    assert_eq!(seen.len(), 5, "{seen:?}");
}

test!("a chain of exports since one another loses nothing of slow writers", chain);
fn chain() {
    let database = shared().database();
    let mut client = database.connect();
    let _storage = directory(&mut client);
    client.batch_execute("select bulk.create_resource_table('Patient')").unwrap();
    let mut writers: Vec<_> = (0..8).map(|_| database.connect()).collect();
    let mut since: Option<String> = None;
    let mut seen = BTreeSet::new();
    let mut number = 0;
    for round in 0..6 {
        // Some transactions begin, some write, some commit, between and while exports run.
        for (index, writer) in writers.iter_mut().enumerate() {
            match (round + index) % 3 {
                0 => writer.batch_execute("begin; select now()").unwrap(),
                1 => {
                    number += 1;
                    let insert = format!(
                        "insert into patient (id, txid, status, resource, ts) values ('p{number}', {number}, 'created', '{{}}', now())"
                    );
                    writer.batch_execute(&insert).unwrap();
                }
                _ => writer.batch_execute("commit").unwrap(),
            }
        }
        let params = since.as_ref().map_or(json!({}), |since| json!({"_since": since}));
        let begun = export(&mut client, "system", &params, None);
        let manifest = manifest(&mut client, &begun);
        seen.extend(names(&lines(&manifest, "output")));
        since = Some(manifest["transactionTime"].as_str().unwrap().to_owned());
    }
    writers.iter_mut().for_each(|writer| writer.batch_execute("commit").unwrap());
    seen.extend(names(&exported(&mut client, "system", json!({"_since": since}), None)));
    let all: BTreeSet<String> = (1..=number).map(|n| format!("Patient/p{n}")).collect();
    assert_eq!(seen, all);
    // Where nobody writes nothing comes twice.
    drop(writers);
    let begun = export(&mut client, "system", &json!({}), None);
    let all = manifest(&mut client, &begun);
    let begun = export(&mut client, "system", &json!({"_since": all["transactionTime"]}), None);
    assert_eq!(manifest(&mut client, &begun)["output"], json!([]));
}

test!("parameters of an export choose what is exported", parameters);
fn parameters() {
    let database = shared().database();
    let mut client = database.connect();
    let _storage = directory(&mut client);
    some(&mut client);
    let mut of = |level: &str, params: Value| names(&exported(&mut client, level, params, None));
    let everything = set(&[
        "Patient/a",
        "Patient/b",
        "Patient/c",
        "Observation/oa",
        "Observation/ob",
        "Observation/oc",
        "Observation/od",
        "Observation/by-b",
        "Organization/o",
        "Group/g",
        "Group/other",
        "Group/empty",
    ]);
    assert_eq!(of("system", json!({})), everything);
    assert_eq!(of("system", json!({"_type": "Organization,Claim"})), set(&["Organization/o"]));
    assert_eq!(of("system", json!({"_type": ["Organization", "Patient"]})).len(), 4);
    let of_patients: BTreeSet<String> =
        everything.iter().filter(|name| !["Observation/od", "Organization/o", "Group/empty"].contains(&name.as_str())).cloned().collect();
    assert_eq!(of("patient", json!({})), of_patients);
    assert_eq!(
        of("patient", json!({"patient": "b", "_type": "Patient,Observation"})),
        set(&["Patient/b", "Observation/ob", "Observation/by-b"])
    );
    assert_eq!(
        of("patient", json!({"patient": ["Patient/a,Patient/c"], "_type": "Observation"})),
        set(&["Observation/oa", "Observation/oc"])
    );
    let filtered = json!({"_type": "Patient,Observation", "_typeFilter": ["Observation?code=x&subject=Patient/a", "Observation?code=s|y"]});
    assert_eq!(of("system", filtered), set(&["Patient/a", "Patient/b", "Patient/c", "Observation/oa", "Observation/ob"]));
    // In the body of a POST.
    let parameter = |name: &str, member: &str, value: Value| json!({"name": name, member: value});
    let posted = json!({"resourceType": "Parameters", "parameter": [
        parameter("_type", "valueString", json!("Patient")), parameter("patient", "valueReference", json!({"reference": "Patient/c"})),
    ]});
    assert_eq!(of("patient", posted), set(&["Patient/c"]));
    // Some elements.
    let cut = exported(&mut client, "system", json!({"_type": "Patient,Observation", "_elements": "name,Observation.value"}), None);
    let keys = |line: &Value| line.as_object().unwrap().keys().cloned().collect::<BTreeSet<String>>();
    assert!(cut["Patient"].iter().all(|line| keys(line) == set(&["resourceType", "id", "meta", "name"])));
    assert!(
        cut["Observation"]
            .iter()
            .filter(|line| line["id"] != "by-b")
            .all(|line| keys(line) == set(&["resourceType", "id", "meta", "valueString"]))
    );
    assert!(cut.values().flatten().all(|line| line["meta"]["tag"][0]["code"] == "SUBSETTED"));
    // Times.
    let boundary =
        value(&mut client, "select to_char(ts at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') from observation where id = 'oc'");
    let mut of = |params: Value| names(&exported(&mut client, "system", params, None));
    assert!(of(json!({"_since": boundary})).is_superset(&set(&["Organization/o", "Observation/od"])));
    assert!(!of(json!({"_since": boundary})).contains("Observation/oc"));
    assert_eq!(of(json!({"_until": boundary})), set(&["Patient/a", "Patient/b", "Patient/c"]));
    // Patients who are not there.
    let refused = export(&mut client, "patient", &json!({"patient": "a,nobody"}), None);
    assert_eq!((refused.status, &refused.body["issue"][0]["code"]), (422, &json!("not-found")));
    let begun = export(
        &mut client,
        "patient",
        &json!({"patient": "a,nobody,Organization/o", "onPatientError": "ignore", "_type": "Patient"}),
        None,
    );
    let manifest_of_some = manifest(&mut client, &begun);
    assert_eq!(names(&lines(&manifest_of_some, "output")), set(&["Patient/a"]));
    let errors = manifest_of_some["extension"]["patient-errors"].as_array().unwrap().clone();
    let said: Vec<&str> = errors.iter().map(|error| error["issue"][0]["diagnostics"].as_str().unwrap()).collect();
    assert_eq!(said, ["Patient/nobody ignored: not found", "Patient reference ignored: invalid format (Organization/o)"]);
    let begun = export(&mut client, "patient", &json!({"patient": "nobody", "onPatientError": "ignore"}), None);
    assert_eq!(manifest(&mut client, &begun)["output"], json!([]));
    // A type that is in no compartment is left out beside others, and said.
    let begun = export(&mut client, "patient", &json!({"_type": "Patient,Organization"}), None);
    let manifest = manifest(&mut client, &begun);
    assert_eq!(names(&lines(&manifest, "output")).len(), 3);
    assert!(manifest["extension"]["warnings"][0].as_str().unwrap().contains("Organization"));
    assert_eq!(manifest["request"], "/fhir/Patient/$export?_type=Patient,Organization");
}

test!("an export of a Group is of its members", group);
fn group() {
    let database = shared().database();
    let mut client = database.connect();
    let _storage = directory(&mut client);
    some(&mut client);
    let without_index = set(&["Patient/a", "Patient/c", "Observation/oa", "Observation/oc", "Group/other"]);
    for format in [
        "",
        "create index on patient using gin (resource jsonb_path_ops); create index on observation using gin (resource); create index on \"group\" using gin (resource)",
    ] {
        client.batch_execute(format).unwrap();
        assert_eq!(names(&exported(&mut client, "group", json!({}), Some("g"))), without_index);
        let named = exported(&mut client, "group", json!({"_type": "Group,Patient"}), Some("g"));
        assert_eq!(names(&named), set(&["Patient/a", "Patient/c", "Group/other", "Group/g"]));
        let own = named["Group"].iter().find(|line| line["id"] == "g").unwrap();
        assert_eq!((own.get("characteristic"), own["member"].as_array().unwrap().len()), (None, 3));
        assert_eq!(names(&exported(&mut client, "group", json!({}), Some("empty"))), set(&[]));
        let of_one =
            json!({"resourceType": "Parameters", "parameter": [{"name": "patient", "valueReference": {"reference": "Patient/c"}}]});
        assert_eq!(names(&exported(&mut client, "group", of_one, Some("g"))), set(&["Patient/c", "Observation/oc"]));
    }
    let outsider = json!({"resourceType": "Parameters", "parameter": [{"name": "patient", "valueReference": {"reference": "Patient/b"}}]});
    let refused = export(&mut client, "group", &outsider, Some("g"));
    assert_eq!(
        (refused.status, &refused.body["issue"][0]["code"], &refused.body["issue"][0]["expression"]),
        (422, &json!("business-rule"), &json!(["Parameters.parameter[0]"]))
    );
    for (id, expected) in [(Some("none"), 404), (None, 400), (Some(""), 400)] {
        assert_eq!(export(&mut client, "group", &json!({}), id).status, expected);
    }
    // An index that would serve is proposed, and used where it is there.
    client.batch_execute("drop index observation_resource_idx").unwrap();
    let output = database
        .psql()
        .args([
            "-c",
            "set bulk.storage_backend = 'file'; set bulk.storage_file_directory = '/nowhere'",
            "-c",
            "select status from bulk.export('group', '{\"_type\": \"Observation\"}', 'g')",
        ])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("HINT:  CREATE INDEX ON public.observation USING gin (resource jsonb_path_ops);"), "{said}");
    wait_until("it has failed", || value(&mut client, "select count(*) from bulk.job where state in ('waiting', 'in-progress')") == "0");
}

test!("what was deleted since is told as Bundles", deleted);
fn deleted() {
    let database = shared().database();
    let mut client = database.connect();
    let _storage = directory(&mut client);
    some(&mut client);
    let begun = export(&mut client, "system", &json!({}), None);
    let since = manifest(&mut client, &begun)["transactionTime"].clone();
    let delete = |table: &str, id: &str| {
        format!(
            "with gone as (delete from {table} where id = '{id}' returning *)
             insert into {table}_history (id, txid, cts, ts, resource_type, status, resource)
             select id, nextval('transaction_id_seq'), cts, now(), resource_type, 'deleted', resource from gone;"
        )
    };
    client
        .batch_execute(&format!(
            "{}{}{}{}
             update observation set status = 'deleted', ts = now() where id = 'oc';
             insert into organization (id, txid, status, resource) values ('o', nextval('transaction_id_seq'), 'recreated', '{{}}')",
            delete("patient", "a"),
            delete("observation", "oa"),
            delete("organization", "o"),
            delete("patient", "b"),
        ))
        .unwrap();
    let urls = |client: &mut Client, level: &str, params: Value, group: Option<&str>| {
        let begun = export(client, level, &params, group);
        let manifest = manifest(client, &begun);
        let gone = lines(&manifest, "deleted");
        let output = names(&lines(&manifest, "output"));
        let urls: BTreeSet<String> =
            gone.values().flatten().map(|bundle| bundle["entry"][0]["request"]["url"].as_str().unwrap().to_owned()).collect();
        assert!(urls.is_disjoint(&output));
        for bundle in gone.values().flatten() {
            assert_eq!((&bundle["type"], &bundle["entry"][0]["request"]["method"]), (&json!("transaction"), &json!("DELETE")));
            assert!(bundle["meta"]["lastUpdated"].as_str().unwrap() > since.as_str().unwrap());
        }
        urls
    };
    let all = set(&["Patient/a", "Patient/b", "Observation/oa", "Observation/oc"]);
    assert_eq!(urls(&mut client, "system", json!({"_since": since}), None), all);
    assert_eq!(urls(&mut client, "patient", json!({"_since": since}), None), all);
    assert_eq!(urls(&mut client, "patient", json!({"_since": since, "_type": "Patient"}), None), set(&["Patient/a", "Patient/b"]));
    // Of members, whether they are there or not.
    assert_eq!(urls(&mut client, "group", json!({"_since": since}), Some("g")), set(&["Patient/a", "Observation/oa", "Observation/oc"]));
    assert_eq!(urls(&mut client, "system", json!({}), None), set(&[]));
    let now = value(&mut client, "select to_json(now() + interval '1 s')#>>'{}'");
    assert_eq!(urls(&mut client, "system", json!({"_since": now}), None), set(&[]));
}

test!("a resource that cannot be exported is told in an error file", broken);
fn broken() {
    let database = shared().database();
    let mut client = database.connect();
    let _storage = directory(&mut client);
    some(&mut client);
    let deep = format!("{}1{}", "{\"a\":".repeat(60), "}".repeat(60));
    client.execute("insert into patient (id, txid, status, resource) values ('deep', 1, 'created', $1::text::jsonb)", &[&deep]).unwrap();
    client.batch_execute("set bulk.max_depth = 10").unwrap();
    for format in ["ndjson", "application/fhir+ndjson+gzip"] {
        let begun = export(&mut client, "system", &json!({"_outputFormat": format, "_type": "Patient"}), None);
        let manifest = manifest(&mut client, &begun);
        assert_eq!(names(&lines(&manifest, "output")), set(&["Patient/a", "Patient/b", "Patient/c"]));
        let errors = lines(&manifest, "error");
        let text = errors["OperationOutcome"][0]["issue"][0]["diagnostics"].as_str().unwrap();
        assert!(errors["OperationOutcome"].len() == 1 && text.starts_with("Patient/deep cannot be exported: "), "{text}");
    }
}

test!("files of an export are as large as settings say", sizes);
fn sizes() {
    let database = shared().database();
    let mut client = database.connect();
    let _storage = directory(&mut client);
    let people: Vec<Value> =
        (0..1050).map(|n| json!({"resourceType": "Patient", "id": format!("p{n}"), "name": [{"text": "x".repeat(1000)}]})).collect();
    load(&mut client, "Patient", &people);
    let mut counts = |setting: &str| {
        client.batch_execute(setting).unwrap();
        let begun = export(&mut client, "system", &json!({}), None);
        let manifest = manifest(&mut client, &begun);
        assert_eq!(names(&lines(&manifest, "output")).len(), 1050);
        manifest["output"].as_array().unwrap().iter().map(|file| file["count"].as_u64().unwrap()).collect::<Vec<u64>>()
    };
    assert_eq!(counts(""), [1050]);
    let counted = counts("set bulk.export_file_rows = 100");
    assert!(counted.len() >= 11 && counted.iter().all(|&count| count <= 100), "{counted:?}");
    let counted = counts("set bulk.export_file_rows = 1050; set bulk.export_file_size = '300kB'");
    assert!((3..=4).contains(&counted.len()), "{counted:?}");
}

test!("what is wrong with an export is refused with an OperationOutcome", refused);
fn refused() {
    let database = shared().database();
    let mut client = database.connect();
    let refuse = |client: &mut Client, level: &str, params: Value, group: Option<&str>| {
        let answer = export(client, level, &params, group);
        assert_eq!(answer.body["resourceType"], "OperationOutcome");
        let text = answer.body["issue"][0]["diagnostics"].as_str().unwrap().to_owned();
        (answer.status, answer.body["issue"][0]["code"].as_str().unwrap().to_owned(), text)
    };
    // Before all else.
    for (level, params, group) in [
        ("system", json!({}), None),
        ("group", json!({}), Some("none")),
        ("system", json!({"_outputFormat": "x"}), None),
        ("system", json!({"nonsense": "x"}), None),
    ] {
        assert_eq!(refuse(&mut client, level, params, group), (500, "exception".to_owned(), "storage-type not specified".to_owned()));
    }
    for (settings, message) in [
        ("set bulk.storage_backend = 'tape'", "unsupported storage-type"),
        ("set bulk.storage_backend = 'aws'", "bulk-storage account not specified"),
        ("set bulk.storage_aws_account = 'none'", "account not found"),
        ("set bulk.storage_backend = 'azure'", "Azure container not specified"),
        ("set bulk.storage_backend = 'file'", "bucket is not specified"),
    ] {
        client.batch_execute(settings).unwrap();
        assert_eq!(refuse(&mut client, "system", json!({}), None), (500, "exception".to_owned(), message.to_owned()));
    }
    let _storage = directory(&mut client);
    some(&mut client);
    for (level, params, status) in [
        ("everything", json!({}), 400),
        ("system", json!([]), 400),
        ("system", json!({"nonsense": "x"}), 422),
        ("system", json!({"_type": "Custom"}), 400),
        ("system", json!({"_typeFilter": "Observation?_sort=x"}), 400),
        ("system", json!({"patient": "a"}), 422),
        ("patient", json!({"_type": "Organization"}), 400),
        ("patient", json!({"consentStrategy": "opt-in"}), 422),
    ] {
        assert_eq!(refuse(&mut client, level, params.clone(), None).0, status, "{level} {params}");
    }
    // One at a time; its status while it is there, and when it is not.
    let server = S3Server::start(&["bucket"]).expect("make test provides it");
    let proxy = Proxy::start(server.server.port);
    proxy.trouble_writing(Some(Trouble::Refuse), 0);
    let mut other = database.connect();
    bucket(&mut other, &proxy.host());
    let begun = export(&mut other, "system", &json!({"_type": "Organization"}), None);
    let busy = export(&mut other, "system", &json!({"_type": "Organization"}), None);
    assert_eq!((busy.status, busy.headers["retry-after"].as_str(), &busy.body["issue"][0]["code"]), (429, Some("10"), &json!("throttled")));
    let on_its_way = status(&mut other, &begun.id());
    assert_eq!(on_its_way.status, 202);
    assert!(
        on_its_way.headers["x-progress"].as_str().unwrap().len() < 100 && on_its_way.headers["retry-after"].is_string(),
        "{on_its_way:?}"
    );
    assert_eq!(cancel(&mut other, &begun.id()).status, 202);
    assert_eq!((status(&mut other, &begun.id()).status, cancel(&mut other, &begun.id()).status), (404, 404));
    for id in ["", "none", "' or true --"] {
        let unknown = status(&mut client, id);
        assert_eq!((unknown.status, &unknown.body["issue"][0]["code"]), (404, &json!("not-found")));
        assert_eq!(cancel(&mut client, id).status, 404);
    }
    assert_eq!(failure(&mut client, "select bulk.export_status(null)").code, "22004");
}

test!("an export takes the rights that reading and writing take", rights);
fn rights() {
    let database = shared().database();
    let mut client = database.connect();
    let storage = directory(&mut client);
    some(&mut client);
    let name = &database.name;
    client
        .batch_execute(&format!(
            "create role exporter_{name} login; create role peeper_{name}; grant usage on schema public to public;
         grant select on patient, patient_history, organization, organization_history, \"group\", group_history to exporter_{name};
         alter table patient enable row level security; create policy not_all on patient for select using (id <> 'b')"
        ))
        .unwrap();
    client.batch_execute(&format!("set session authorization exporter_{name}")).unwrap();
    let denied = export(&mut client, "system", &json!({"_type": "Patient"}), None);
    assert_eq!((denied.status, &denied.body["issue"][0]["code"]), (403, &json!("forbidden")));
    client
        .batch_execute(&format!(
            "reset session authorization; grant pg_write_server_files to exporter_{name}; set session authorization exporter_{name}"
        ))
        .unwrap();
    assert_eq!(export(&mut client, "system", &json!({}), None).status, 403);
    // Row security counts, in the worker as well.
    assert_eq!(
        names(&exported(&mut client, "system", json!({"_type": "Patient,Organization"}), None)),
        set(&["Patient/a", "Patient/c", "Organization/o"])
    );
    let begun = export(&mut client, "system", &json!({"_type": "Organization"}), None);
    manifest(&mut client, &begun);
    client.batch_execute(&format!("reset session authorization; set role peeper_{name}")).unwrap();
    assert_eq!((status(&mut client, &begun.id()).status, cancel(&mut client, &begun.id()).status), (403, 403));
    assert_eq!(value(&mut client, "select count(*) from bulk.export_run"), "0");
    assert_eq!(value(&mut client, "select count(*) from bulk.export_file"), "0");
    // Whoever gives up the files has them deleted, as their owner.
    client.batch_execute("reset role").unwrap();
    let files = || fs::read_dir(storage.path()).unwrap().flat_map(|entry| fs::read_dir(entry.unwrap().path()).unwrap()).count();
    let before = files();
    assert_eq!(cancel(&mut client, &begun.id()).status, 202);
    wait_until("they are deleted", || files() == before - 1);
    assert_eq!((status(&mut client, &begun.id()).status, cancel(&mut client, &begun.id()).status), (404, 404));
}

test!("an export of many patients keeps their ids and no more", many_patients);
fn many_patients() {
    let database = shared().database();
    let mut client = database.connect();
    let _storage = directory(&mut client);
    client
        .batch_execute(
            "select bulk.create_resource_table('Patient');
            insert into patient (id, txid, status, resource) select 'patient-' || n, n, 'created', '{}' from generate_series(1, 400000) n",
        )
        .unwrap();
    // Of any of its workers, at its peak, in bytes.
    let mut peak = |level: &str| {
        let begun = export(&mut client, level, &json!({"_type": "Patient"}), None);
        let mut most = 0;
        wait_until("it has ended", || {
            let workers = "select pid from pg_stat_activity where backend_type = 'bulk worker' and datname = current_database()";
            for worker in client.query(workers, &[]).unwrap() {
                most = most.max(rss_anon(worker.get(0)));
            }
            value(&mut client, &format!("select state from bulk.job where id = '{}'", begun.id())) == "completed"
        });
        most
    };
    let (all, patients) = (peak("system"), peak("patient"));
    println!("workers of an export: {} kB, of one of 400,000 patients: {} kB", all / 1024, patients / 1024);
    // A hash of each id, in a table that doubles: 13 MB. How much else a worker has at its peak, and whether a look meets it, differs by some
    // 20 MB from run to run. What a cursor kept before it freed its rows, 215 bytes a patient, would be 86 MB.
    assert!(patients < all + (60 << 20), "{patients} bytes, {all} without ids");
}
