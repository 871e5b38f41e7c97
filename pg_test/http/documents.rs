//! The requests that the source documents print (`../shared/spec/source`), as they are printed but for host and credentials, sent to the
//! gateway. What cannot work is in the list too, with the reason.

use crate::support::cluster::server_directory;
use crate::support::front::{self, Answer, Front};
use crate::support::gateways::{asker, gateway};
use crate::support::servers::S3Server;
use crate::support::source::{Nginx, gzip};
use crate::support::statement::{value, wait_until};
use crate::support::trial::test;
use postgres::Client;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/spec/source")
}

/// A request of a document.
struct Example {
    /// Of the file's name.
    document: &'static str,
    /// Its lines, without what is indented around them.
    text: &'static str,
    fate: Fate,
}

enum Fate {
    /// A command for the shell.
    Shell,
    /// A request line with its headers, an empty line, and a body.
    Request,
    /// The same, which is no request by itself: `<…>` and `[…]` stand for what an answer before it said.
    After(&'static str),
    Cannot(&'static str),
}

const IMPORT_OF_2019: &str = include_str!("documents/import_2019.yaml");

const EXAMPLES: &[Example] = &[
    Example { document: "000", text: "GET /Patient/$dump", fate: Fate::Request },
    Example {
        document: "000",
        text: "POST /$load\n\nsource: 'https://storage.googleapis.com/aidbox-public/icd10cm.ndjson.gz'\ntemp_table: _icd10cm\nvalidation:\n  enable: off # | async | on\n  checks: struct # | refs | all\nmethod: copy # | insert",
        fate: Fate::Request,
    },
    Example {
        document: "000",
        text: "POST /fhir/$import\nresource:",
        fate: Fate::Cannot(
            "a schema, not a request: its values are alternatives (\"start\" | \"pause\"), which is no YAML; the test of bulk.import has each",
        ),
    },
    Example { document: "000", text: IMPORT_OF_2019, fate: Fate::Request },
    Example { document: "000", text: "GET /BulkImportStatus/imp-a", fate: Fate::After("imp-a") },
    Example {
        document: "000",
        text: "POST /$dump-sql\n\nquery:  select id, resource#>>'{name,0,family}'\nformat: csv # ndjson; sql; elastic-bulk?",
        fate: Fate::Cannot("the query has no FROM, so PostgreSQL knows no column id: 422; with one it is sent by the next test"),
    },
    Example {
        document: "000",
        text: "PUT /\n\n- resourceType: Client",
        fate: Fate::Cannot("not of the Bulk API: who may do what is said by GRANT to a role, here bulk-client"),
    },
    Example { document: "000", text: "curl -u bulk-client:secret /Patient/\\$dump > /tmp/pt.ndjson", fate: Fate::Shell },
    Example {
        document: "000",
        text: "curl -v -X POST -u bulk-client:secret -H 'content-type:application/json' \\\n   https://<YOURBOX>/\\$dump-sql \\\n   -d '{\"query\": \"select id, ts, resource#>>'\"'\"'{module}'\"'\"' from entity\"}' \\\n   > data.tsv",
        fate: Fate::Shell,
    },
    Example { document: "001", text: "GET /Patient/$dump", fate: Fate::Request },
    Example {
        document: "001",
        text: "curl -u client:secret -H 'content-type:application/json' \\\nhttps://<box-url>/Patient/\\$dump | gzip > patients.ndjson.gz",
        fate: Fate::Shell,
    },
    Example { document: "001", text: "GET /Appointment/$dump?fhir=true", fate: Fate::Request },
    Example {
        document: "001",
        text: "POST /$dump-sql\nquery: select id, resource#>>'{name,0,family}'\nformat: csv # ndjson; sql; elastic-bulk?",
        fate: Fate::Cannot("as in the document of 2019"),
    },
    Example {
        document: "001",
        text: "POST /fhir/Patient/$load\nsource: 'https://storage.googleapis.com/aidbox-public/synthea/100/Patient.ndjson.gz'",
        fate: Fate::Request,
    },
    Example {
        document: "001",
        text: "POST /fhir/$load\nsource: 'https://storage.googleapis.com/aidbox-public/synthea/100/all.ndjson.gz'",
        fate: Fate::Request,
    },
    Example {
        document: "001",
        text: "POST /fhir/$import\nid: synthea\ninputFormat: application/fhir+ndjson\ncontentEncoding: gzip\nmode: bulk\n- resourceType: Encounter",
        fate: Fate::Cannot("the page lost the line `inputs:`, so it is no YAML; with that line it is sent by the next test"),
    },
    Example { document: "001", text: "GET /BulkImportStatus/[id]", fate: Fate::After("imp-a") },
    Example {
        document: "002",
        text: "POST /rpc\ncontent-type: text/yaml\naccept: text/yaml\n\nmethod: aidbox.bulk/load-from-bucket\nparams:\n  bucket: s3://your-bucket-id\n  thread-num: 4\n  account:\n    access-key-id: your-key-id\n    secret-access-key: your-secret-access-key\n    region: us-east-1",
        fate: Fate::Request,
    },
    Example {
        document: "002",
        text: "POST /rpc\ncontent-type: text/yaml\naccept: text/yaml\n\nmethod: aidbox.bulk/load-from-bucket-status\nparams:\n  bucket: s3://your-bucket-id",
        fate: Fate::Request,
    },
    Example {
        document: "003",
        text: "GET [base]/<resourceType>/$dump",
        fate: Fate::Cannot("a pattern: the request after it is one of its kind"),
    },
    Example { document: "003", text: "GET /Patient/$dump", fate: Fate::Request },
    Example { document: "003", text: "curl -u bulk-client:secret $AIDBOX_BASE_URL/Patient/\\$dump", fate: Fate::Shell },
    Example {
        document: "003",
        text: "GET /Appointment",
        fate: Fate::Cannot("a search, not of the Bulk API; the page means the curl command below it"),
    },
    Example { document: "003", text: "curl -u bulk-client:secret $AIDBOX_BASE_URL/Appointment/\\$dump", fate: Fate::Shell },
    Example { document: "003", text: "GET /Patient?fhir=true", fate: Fate::Cannot("as above") },
    Example { document: "003", text: "curl -u bulk-client:secret $AIDBOX_BASE_URL/Patient/\\$dump?fhir=true", fate: Fate::Shell },
    Example {
        document: "004",
        text: "GET /fhir/Patient/$export\nAccept: application/fhir+json\nPrefer: respond-async",
        fate: Fate::Request,
    },
    Example { document: "004", text: "GET /fhir/$export-status/<id>", fate: Fate::After("export") },
    Example { document: "004", text: "DELETE /fhir/$export-status/<id>", fate: Fate::After("export") },
    Example {
        document: "004",
        text: "GET /fhir/Group/<group-id>/$export\nAccept: application/fhir+json\nPrefer: respond-async",
        fate: Fate::After("group"),
    },
    Example { document: "004", text: "GET /fhir/$export\nAccept: application/fhir+json\nPrefer: respond-async", fate: Fate::Request },
    Example { document: "004", text: "POST /rpc\nContent-Type: text/yaml\n\nmethod: aidbox.bulk/storage-healthcheck", fate: Fate::Request },
];

/// Rows that the page on `$dump` shows, with their times and versions.
const ROWS: &str = r#"
insert into patient (id, txid, cts, ts, status, resource) select id, txid, '2021-06-10T08:26:10.707454Z', '2021-06-10T08:26:10.707454Z', 'created', resource::jsonb from (values
    ('pt-1', 481, '{"name": [{"given": ["Alice"]}]}'), ('pt-2', 482, '{"name": [{"given": ["Bob"]}]}'),
    ('pt-3', 483, '{"name": [{"given": ["Charles"]}], "citizenship": [{"code": {"text": "ru"}}]}')) row(id, txid, resource);
insert into appointment (id, txid, cts, ts, status, resource) select id, txid, '2021-06-10T08:26:10.707454Z', '2021-06-10T08:26:10.707454Z', 'created',
    jsonb_build_object('status', status, 'participant', jsonb_build_array(jsonb_build_object('actor', jsonb_build_object('id', patient, 'resourceType', 'Patient'), 'status', 'accepted'))) from (values
    ('ap-1', 484, 'pt-1', 'fulfilled'), ('ap-2', 485, 'pt-1', 'booked'), ('ap-3', 486, 'pt-2', 'fulfilled')) row(id, txid, patient, status);
insert into "group" (id, txid, status, resource) values ('g', 1, 'created', '{"member": [{"entity": {"id": "pt-1", "resourceType": "Patient"}}]}');
create table entity (id text, ts timestamptz, resource jsonb);
insert into entity values ('e', '2021-06-10T08:26:10.707454Z', '{"module": "m"}');
"#;

/// What a document's body says, up to the id of the resource: with what the documents of 2021 leave as a number.
fn as_printed(dumped: &str) -> String {
    (481..487).fold(dumped.to_owned(), |text, version| text.replace(&format!("\"{version}\""), &version.to_string()))
}

/// Where the documents' sources lie: the same paths, on a web server of ours.
fn web() -> (tempfile::TempDir, Nginx) {
    let root = server_directory();
    let public = root.path().join("aidbox-public");
    for directory in ["500", "synthea/100"] {
        fs::create_dir_all(public.join(directory)).unwrap();
        for name in IMPORT_OF_2019.lines().filter_map(|line| line.split_once("type: \"")?.1.strip_suffix('"')).filter(|name| *name != "url")
        {
            let line = format!("{{\"resourceType\":\"{name}\",\"id\":\"from-{directory}\"}}\n").replace('/', "-");
            fs::write(public.join(directory).join(format!("{name}.ndjson.gz")), gzip(line.as_bytes())).unwrap();
        }
    }
    fs::write(
        public.join("synthea/100/all.ndjson.gz"),
        gzip(b"{\"resourceType\":\"Patient\",\"id\":\"all\"}\n{\"resourceType\":\"Goal\",\"id\":\"all\"}\n"),
    )
    .unwrap();
    fs::write(public.join("icd10cm.ndjson.gz"), gzip(b"{\"resourceType\":\"Concept\",\"id\":\"A00\"}\n")).unwrap();
    let nginx = Nginx::start(root.path(), "");
    (root, nginx)
}

/// Sends a printed request. Bodies are YAML there.
fn send(asker: &Front, text: &str) -> Answer {
    let (line, rest) = text.split_once('\n').unwrap_or((text, ""));
    let (method, target) = line.split_once(' ').unwrap();
    let (headers, body): (Vec<&str>, Vec<&str>) = rest.lines().partition(|line| {
        let name = line.split(':').next().unwrap_or_default().to_lowercase();
        ["accept", "content-type", "prefer"].contains(&name.as_str())
    });
    let yaml = headers.iter().all(|header| !header.to_lowercase().contains("yaml")) && !body.is_empty();
    let headers: Vec<&str> = headers.into_iter().chain(yaml.then_some("content-type: text/yaml")).collect();
    asker.call(method, target, &headers, body.join("\n").trim_start().as_bytes())
}

test!("the requests of the source documents work as they are printed", printed);
fn printed() {
    let cluster = front::cluster();
    let database = cluster.database();
    let (mut client, _directory) = front::prepare(&database);
    let types = "array['Patient', 'Appointment', 'Group']";
    client
        .batch_execute(&format!(
            "select bulk.create_resource_table(name) from unnest({types}) name; create table concept (like patient including all)"
        ))
        .unwrap();
    client.batch_execute(ROWS).unwrap();
    client
        .batch_execute(
            "grant all on all tables in schema public to \"bulk-client\"; grant usage on sequence transaction_id_seq to \"bulk-client\"",
        )
        .unwrap();
    let gateway = gateway(&cluster, &database);
    let asker = asker(&gateway, "authorization: Basic YnVsay1jbGllbnQ6c2VjcmV0");
    let (_root, web) = web();
    let s3 = S3Server::start(&["your-bucket-id"]).unwrap();
    fs::write(s3.bucket("your-bucket-id").join("Patient.ndjson.gz"), gzip(b"{\"id\":\"of-the-bucket\"}\n")).unwrap();
    let base = asker.base.clone();
    let with_hosts = |text: &str| {
        let account = format!("    region: us-east-1\n    host: {}", s3.host());
        text.replace("https://storage.googleapis.com/", &web.url(""))
            .replace("https://<YOURBOX>", &base)
            .replace("https://<box-url>", &base)
            .replace("secret /Patient", &format!("secret {base}/Patient"))
            .replace("/tmp/pt.ndjson", "pt.ndjson")
            .replace("    region: us-east-1", &account)
            .replace("your-key-id", "KEY")
            .replace("your-secret-access-key", "SECRET")
    };
    let mut export = String::new();
    for Example { document, text, fate } in EXAMPLES {
        let title = format!("{document}: {text}");
        let sent = with_hosts(text);
        match fate {
            Fate::Cannot(_) => {}
            Fate::Shell => shell(&mut client, &base, &sent, &title),
            Fate::Request => {
                let answer = send(&asker, &sent);
                assert!((200..300).contains(&answer.status), "{title}: {answer:?}");
                check(&answer, &title);
                if let Some(location) = answer.headers.get("content-location").filter(|location| location.contains("export")) {
                    export = location.clone();
                    wait_until("it is completed", || asker.get(&export).status == 200);
                }
            }
            Fate::After("export") => {
                let id = export.rsplit('/').next().unwrap();
                let answer = send(&asker, &sent.replace("<id>", id));
                assert_eq!(answer.status, if text.starts_with("GET") { 200 } else { 202 }, "{title}: {answer:?}");
            }
            Fate::After("group") => {
                let answer = send(&asker, &sent.replace("<group-id>", "g"));
                assert_eq!(answer.status, 202, "{title}: {answer:?}");
                wait_until("it is completed", || asker.get(&answer.headers["content-location"]).status == 200);
            }
            Fate::After(id) => {
                let request = sent.replace("[id]", id);
                let mut answer = send(&asker, &request);
                wait_until("it is done", || {
                    answer = send(&asker, &request);
                    answer.json()["status"]["process"] == "done"
                });
                of_2019(&answer.json());
            }
        }
    }
    corrected(&asker, &with_hosts);
}

/// What an answer holds beside its status.
fn check(answer: &Answer, title: &str) {
    let says = |words: &[&str]| words.iter().for_each(|word| assert!(answer.text().contains(word), "{title}: {answer:?}"));
    match title {
        title if title.contains("load-from-bucket-status") => says(&["state:", "total: 1"]),
        title if title.contains("load-from-bucket") => {
            says(&["Upload from bucket <s3://your-bucket-id> started. 1 new files added.", "new-files-count: 1"])
        }
        title if title.contains("healthcheck") => says(&["result:", "message: ok", "type: file"]),
        title if title.contains("/Patient/$load") => says(&["total: 1"]),
        title if title.contains("all.ndjson.gz") => says(&["Patient: 1", "Goal: 1"]),
        title if title.contains("_icd10cm") => says(&["1"]),
        title if title.contains("$export") => assert_eq!(answer.status, 202),
        title if title.contains("$dump") => {
            assert_eq!((answer.kind(), answer.headers["transfer-encoding"].as_str()), ("application/ndjson", "chunked"))
        }
        _ => {}
    }
}

/// Runs a printed command, and compares what it writes with what the document shows.
fn shell(client: &mut Client, base: &str, command: &str, title: &str) {
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &format!("export AIDBOX_BASE_URL={base}\n{command}")])
        .current_dir(directory.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{title}: {output:?}");
    let shown = String::from_utf8(output.stdout).unwrap();
    let file = |name: &str| fs::read(directory.path().join(name)).unwrap();
    if title.contains("data.tsv") {
        assert_eq!(String::from_utf8(file("data.tsv")).unwrap().trim().rsplit('\t').next(), Some("m"), "{title}");
    } else if title.contains("pt.ndjson") {
        let all = value(client, "select string_agg(line || e'\\n', '') from (select bulk.dump('Patient') as line) x");
        assert_eq!(String::from_utf8(file("pt.ndjson")).unwrap(), all);
    } else if title.contains("patients.ndjson.gz") {
        assert!(file("patients.ndjson.gz").starts_with(&[0x1f, 0x8b]));
    } else {
        let document = fs::read_dir(sources())
            .ok()
            .into_iter()
            .flatten()
            .flatten()
            .find(|entry| entry.file_name().to_string_lossy().starts_with("003"));
        let Some(document) = document else { return };
        let page = fs::read_to_string(document.path()).unwrap();
        let printed: Vec<String> = shown.lines().map(as_printed).filter(|line| line.contains("2021-06-10T08:26:10.707454Z")).collect();
        assert_eq!(printed.len(), 3, "{title}: {shown}");
        for line in printed {
            assert!(page.contains(&line), "{title}: {line}");
        }
    }
}

/// The status that the document of 2019 shows, but for its numbers.
fn of_2019(status: &Value) {
    assert_eq!(
        (&status["id"], &status["resourceType"], &status["inputSource"]),
        (&"imp-a".into(), &"BulkImportStatus".into(), &"source".into())
    );
    assert_eq!(status["inputs"].as_array().unwrap().len(), 12, "{status}");
    for job in status["status"]["jobs"].as_array().unwrap() {
        let thread = &job["threads"][0];
        assert_eq!((&thread["state"], &thread["bytes"]["objects-copied"]), (&"finished-copying".into(), &1.into()), "{status}");
    }
}

/// What a page lost, put back.
fn corrected(asker: &Front, with_hosts: &dyn Fn(&str) -> String) {
    let query = "POST /$dump-sql\n\nquery:  select id, resource#>>'{name,0,given,0}' from patient where id = 'pt-1'\nformat: csv # ndjson; sql; elastic-bulk?";
    let answer = send(asker, query);
    assert_eq!((answer.status, answer.kind(), answer.text().trim()), (200, "application/CSV", "pt-1,Alice"), "{answer:?}");
    let import = "POST /fhir/$import\nid: synthea\ninputFormat: application/fhir+ndjson\ncontentEncoding: gzip\nmode: bulk\ninputs:\n- resourceType: Encounter\n  url: https://storage.googleapis.com/aidbox-public/synthea/100/Encounter.ndjson.gz\n- resourceType: Organization\n  url: https://storage.googleapis.com/aidbox-public/synthea/100/Organization.ndjson.gz\n- resourceType: Patient\n  url: https://storage.googleapis.com/aidbox-public/synthea/100/Patient.ndjson.gz";
    let begun = send(asker, &with_hosts(import));
    assert_eq!((begun.status, begun.headers["content-location"].as_str()), (200, "/BulkImportStatus/synthea"), "{begun:?}");
    wait_until("it is finished", || asker.get("/BulkImportStatus/synthea").json()["status"] == "finished");
}

fn plain(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

test!("every request of the source documents is in the list", complete, Texts);
/// Each document's lines that begin like a request or a command stand in an example, and each example in its document.
fn complete() {
    for entry in fs::read_dir(sources()).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let page = fs::read_to_string(entry.path()).unwrap();
        let listed: Vec<&Example> = EXAMPLES.iter().filter(|example| name.starts_with(example.document)).collect();
        for example in &listed {
            assert!(plain(&page).contains(&plain(example.text)), "{name} does not print: {}", example.text);
        }
        for line in page.lines().map(str::trim) {
            let is_request = ["curl ", "GET ", "POST ", "PUT ", "DELETE ", "PATCH "].iter().any(|word| line.starts_with(word));
            // Sentences begin so too; and a reason that is never said is none.
            assert!(listed.iter().all(|example| !matches!(example.fate, Fate::Cannot(""))));
            if is_request && line.contains(['/', '$']) {
                assert!(listed.iter().any(|example| plain(example.text).contains(&plain(line.trim_end_matches('\\')))), "{name}: {line}");
            }
        }
        assert!(!page.contains("bq load") || name.starts_with("000"), "{name}: Google's own command, which needs Google's server");
    }
}
