//! HTTP layers before the extension, each asked with curl: what every one of them must answer.

use crate::support::cluster::{Cluster, Database, server_directory};
use crate::support::source::{File, Nginx, gzip};
use crate::support::statement::{value, wait_until};
use flate2::read::MultiGzDecoder;
use postgres::Client;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// Where a layer answers, and by which header it knows who asks.
pub struct Front {
    pub base: String,
    pub authorization: Option<String>,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The media type, whatever is said of its characters.
    pub fn kind(&self) -> &str {
        self.headers.get("content-type").map_or("", |kind| kind.split(';').next().unwrap())
    }
}

impl Front {
    pub fn call(&self, method: &str, target: &str, headers: &[&str], body: &[u8]) -> Answer {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "-i", "-g", "--path-as-is", "--max-time", "60", "-H", "Expect:"]);
        curl.args(if method == "HEAD" { vec!["-I"] } else { vec!["-X", method] });
        for header in headers.iter().copied().chain(self.authorization.as_deref()) {
            curl.args(["-H", header]);
        }
        if !body.is_empty() {
            curl.args(["--data-binary", "@-"]);
        }
        let mut curl = curl.arg(format!("{}{target}", self.base)).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("curl runs");
        let mut stdin = curl.stdin.take().unwrap();
        let body = body.to_vec();
        // Whoever refuses a body may not read it.
        let writing = std::thread::spawn(move || drop(stdin.write_all(&body)));
        let output = curl.wait_with_output().unwrap();
        writing.join().unwrap();
        let end =
            output.stdout.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or_else(|| panic!("{method} {target}: no answer"));
        let head = String::from_utf8(output.stdout[..end].to_vec()).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok()).unwrap();
        let headers = lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
        Answer { status, headers, body: output.stdout[end + 4..].to_vec() }
    }

    /// The status of a request whose first line is sent as it is.
    pub fn raw(&self, line: &[u8]) -> u16 {
        let mut stream = TcpStream::connect(self.base.strip_prefix("http://").unwrap()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let authorization = self.authorization.as_deref().unwrap_or("x: y");
        // At once: a server that refuses the line closes, and what comes behind it would take the answer away.
        let rest = format!(" HTTP/1.1\r\nhost: localhost\r\n{authorization}\r\nconnection: close\r\n\r\n");
        let _ = stream.write_all(&[line, rest.as_bytes()].concat());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
    }

    pub fn get(&self, target: &str) -> Answer {
        self.call("GET", target, &[], b"")
    }

    pub fn post(&self, target: &str, body: &Value) -> Answer {
        self.call("POST", target, &["content-type: application/json"], body.to_string().as_bytes())
    }

    /// An answer that is waited for.
    fn until(&self, target: &str, arrived: impl Fn(&Answer) -> bool) -> Answer {
        let mut answer = self.get(target);
        wait_until(target, || {
            answer = self.get(target);
            arrived(&answer)
        });
        answer
    }
}

/// A cluster with the roles `bulk-client`, which is to do all that the operations take, `client`, and `poor`, which may do nothing. The password is
/// `secret`.
pub fn cluster() -> Cluster {
    let cluster = Cluster::start_listening();
    cluster
        .connect("postgres", "postgres")
        .batch_execute(
            "create role \"bulk-client\" login password 'secret'; create role client login password 'secret';
             create role poor login password 'secret'",
        )
        .unwrap();
    cluster
}

/// Waits until a layer that has begun answers for the database.
pub fn wait_for(front: &Front) {
    wait_until("it answers", || front.get("/rpc").status != 503);
}

/// What the database of a front is told of storage and rights. The directory holds what is exported.
pub fn prepare(database: &Database) -> (Client, TempDir) {
    let directory = server_directory();
    let mut client = database.connect();
    client
        .batch_execute(&format!(
            "load 'bulk';
             alter database {0} set bulk.allowed_hosts = '127.0.0.1';
             alter database {0} set bulk.storage_backend = 'file';
             alter database {0} set bulk.storage_file_directory = '{1}';
             grant bulk_remote, pg_read_server_files, pg_write_server_files to \"bulk-client\";
             grant pg_read_all_data to client;
             grant create on schema public to \"bulk-client\"",
            database.name,
            directory.path().display()
        ))
        .unwrap();
    (client, directory)
}

const LINES: &str = r#"{"resourceType":"Patient","id":"pt-1","name":[{"given":["Alice"]}],"multipleBirthInteger":2}
{"resourceType":"Patient","id":"pt-2","name":[{"given":["Bob"]}]}
{"resourceType":"Observation","id":"o1","status":"final","code":{"text":"x"},"subject":{"reference":"Patient/pt-1"},"valueQuantity":{"value":1.10}}
{"resourceType":"Group","id":"g1","type":"person","actual":true,"member":[{"entity":{"reference":"Patient/pt-1"}}]}
"#;

fn inflated(bytes: &[u8]) -> String {
    let mut text = String::new();
    MultiGzDecoder::new(bytes).read_to_string(&mut text).unwrap();
    text
}

/// Every route, with the statuses, headers and bodies that are documented. `poor` is a role without rights.
pub fn contract(front: &Front, poor: &Front, client: &mut Client) {
    let root = server_directory();
    fs::write(root.path().join("all.ndjson.gz"), gzip(LINES.as_bytes())).unwrap();
    let web = Nginx::start(root.path(), "");
    loads(front, &web);
    dumps(front, client);
    queries(front);
    imports(front, &web);
    exports(front);
    calls(front);
    refusals(front, poor, client);
}

fn loads(front: &Front, web: &Nginx) {
    let counts = json!({"Group": 1, "Observation": 1, "Patient": 2});
    let answer = front.post("/fhir/$load", &json!({"source": web.url("all.ndjson.gz?signature=SECRET")}));
    assert_eq!((answer.status, answer.kind(), answer.json()), (200, "application/json", counts), "{answer:?}");
    let goal = File::new(b"{\"resourceType\":\"Goal\",\"id\":\"1\",\"startDate\":\"2020\"}\n");
    assert_eq!(front.post("/$load", &json!({"source": goal.url()})).json(), json!({"Goal": 1}));
    assert_eq!(front.post("/Goal/$load", &json!({"source": goal.url(), "update": true})).json(), json!({"total": 1}));
    assert_eq!(front.post("/fhir/Goal/%24load", &json!({"source": goal.url()})).json(), json!({"total": 1}));
    let missing = front.post("/fhir/$load", &json!({"source": web.url("missing?signature=SECRET")}));
    assert_eq!((missing.status, missing.kind()), (422, "application/fhir+json"), "{missing:?}");
    assert!(!missing.text().contains("SECRET"));
}

fn dumps(front: &Front, client: &mut Client) {
    let mut dumped = |call: &str| value(client, &format!("select string_agg(line || e'\\n', '') from (select {call} as line) x"));
    let plain = dumped("bulk.dump('Patient')");
    let answer = front.get("/Patient/$dump");
    assert_eq!((answer.status, answer.kind(), answer.text()), (200, "application/ndjson", plain.clone()), "{answer:?}");
    assert_eq!(answer.headers.get("transfer-encoding").map(String::as_str), Some("chunked"));
    let fhir = front.get("/Patient/$dump?fhir=true&_since=2020-01-01T00:00:00%2B02:00");
    assert_eq!(fhir.text(), dumped("bulk.dump('Patient', fhir => true)"));
    assert_eq!(front.get("/Patient/$dump?_since=2200-01-01").text(), "");
    let zipped = front.get("/Patient/$dump?gzip=true");
    assert_eq!((zipped.headers["content-encoding"].as_str(), inflated(&zipped.body)), ("gzip", plain));
    let csv = front.get("/Patient/$dump-csv");
    assert_eq!((csv.status, csv.kind()), (200, "text/csv"), "{csv:?}");
    assert_eq!(csv.text().replace("\r\n", "\n"), dumped("bulk.dump_csv('Patient')"));
    let empty = front.get("/Account/$dump");
    assert_eq!((empty.status, empty.text().as_str()), (200, ""));
}

fn queries(front: &Front) {
    let query = "select id, resource#>>'{name,0,given,0}' as name from patient order by id";
    for (target, body, kind, text) in [
        ("/$dump-sql", json!({"query": query}), "text/tab-separated-values", "pt-1\tAlice\npt-2\tBob\n"),
        (
            "/$dump-sql?_format=ndjson",
            json!({"query": query}),
            "application/ndjson",
            "{\"id\":\"pt-1\",\"name\":\"Alice\"}\n{\"id\":\"pt-2\",\"name\":\"Bob\"}\n",
        ),
        (
            "/$dump-sql",
            json!({"query": query, "format": "csv", "options": {"header": true}}),
            "application/CSV",
            "id,name\npt-1,Alice\npt-2,Bob\n",
        ),
    ] {
        let answer = front.post(target, &body);
        assert_eq!((answer.status, answer.kind(), answer.text().replace("\r\n", "\n").as_str()), (200, kind, text), "{target} {body}");
    }
    // A session of a pool stays what it was: no query becomes another role, nor leaves a setting to the next.
    for query in [
        "select set_config('role', 'poor', true)",
        "select set_config('role', 'none', false)",
        "select set_config('session_authorization', 'poor', false)",
    ] {
        assert_eq!(front.post("/$dump-sql", &json!({"query": query})).status, 403, "{query}");
    }
    for _ in 0..3 {
        assert_eq!(
            front.post("/$dump-sql", &json!({"query": "select set_config('bulk.base_url', 'https://evil.example', false)"})).status,
            200
        );
        let shown = front.post("/$dump-sql", &json!({"query": "select coalesce(current_setting('bulk.base_url', true), '')"}));
        assert_eq!((shown.status, shown.text().trim()), (200, ""), "{shown:?}");
    }
    // What goes wrong in the first rows still has a status, also when it can only be seen as they are read.
    for query in ["select 1 from nothing", "drop table patient", "select 1 / (length(id) - length(id)) from patient"] {
        let answer = front.post("/$dump-sql", &json!({"query": query}));
        assert_eq!((answer.status, answer.kind()), (422, "application/fhir+json"), "{query}: {answer:?}");
        assert_eq!(answer.json()["resourceType"], "OperationOutcome");
    }
}

fn imports(front: &Front, web: &Nginx) {
    let patients = File::new(b"{\"id\":\"pt-3\"}\n");
    let inputs = json!([{"resourceType": "Patient", "url": patients.url()}]);
    for (target, body, status, path) in [
        ("/$import", json!({"id": "one", "contentEncoding": "plain", "inputs": inputs}), 200, "/BulkImportStatus/one"),
        ("/fhir/$import", json!({"id": "two", "inputs": inputs}), 200, "/BulkImportStatus/two"),
        ("/v2/$import", json!({"id": "three", "inputs": inputs}), 200, "/v2/$import/three"),
        ("/v2/fhir/$import", json!({"id": "four", "inputs": inputs}), 200, "/v2/$import/four"),
        ("/fhir/$import", json!({"inputs": inputs}), 201, ""),
    ] {
        let begun = front.post(target, &body);
        assert_eq!((begun.status, begun.kind()), (status, "application/json"), "{target}: {begun:?}");
        let location = begun.headers["content-location"].clone();
        assert!(location == path || (path.is_empty() && location.starts_with("/BulkImportStatus/")), "{location}");
        let ended = front.until(&location, |answer| ["finished", "done"].contains(&answer.json()["status"].as_str().unwrap_or_default()));
        assert_eq!((ended.status, ended.kind()), (200, "application/json"));
    }
    let again = front.post("/$import", &json!({"id": "one", "inputs": inputs}));
    assert_eq!((again.status, again.json()["message"].is_string()), (409, true));
    assert_eq!(front.post("/$import", &json!({"id": "one", "action": "resume"})).status, 406);
    assert_eq!(front.post("/$import", &json!({"id": "none", "action": "abort"})).status, 404);
    let failed = front.post("/fhir/$import", &json!({"id": "failed", "inputs": [{"resourceType": "Patient", "url": web.url("missing")}]}));
    assert_eq!(failed.status, 200);
    let status = front.until("/BulkImportStatus/failed", |answer| answer.json()["status"] == "finished").json();
    assert_eq!(status["inputs"][0]["status"], "failed", "{status}");
    for path in ["/BulkImportStatus/none", "/v2/$import/none", "/fhir/BulkImportStatus/none"] {
        assert_eq!(front.get(path).status, 404, "{path}");
    }
}

fn exports(front: &Front) {
    let types = json!({"name": "_type", "valueString": "Patient,Observation"});
    let parameters = json!({"resourceType": "Parameters", "parameter": [types]}).to_string();
    let prefer = ["accept: application/fhir+json", "prefer: respond-async", "content-type: application/fhir+json"];
    for (method, target, body, counts) in [
        ("GET", "/fhir/$export?_type=Patient,Observation&_outputFormat=application/fhir%2Bndjson", "", [3, 1]),
        ("POST", "/fhir/$export", parameters.as_str(), [3, 1]),
        ("GET", "/fhir/Patient/$export?_type=Patient,Observation", "", [3, 1]),
        ("POST", "/fhir/Patient/$export", &parameters, [3, 1]),
        ("GET", "/fhir/Group/g1/$export", "", [1, 1]),
        ("POST", "/fhir/Group/g1/%24export", &parameters, [1, 1]),
    ] {
        let begun = front.call(method, target, &prefer, body.as_bytes());
        assert_eq!((begun.status, begun.kind()), (202, "application/fhir+json"), "{method} {target}: {begun:?}");
        let path = begun.headers["content-location"].clone();
        let first = front.get(&path);
        assert!(
            first.status == 200
                || (first.status == 202 && first.headers.contains_key("x-progress") && first.headers.contains_key("retry-after"))
        );
        let manifest = front.until(&path, |answer| answer.status != 202);
        assert_eq!((manifest.status, manifest.kind()), (200, "application/json"), "{manifest:?}");
        assert!(manifest.headers.contains_key("expires"));
        let body = manifest.json();
        let files: BTreeMap<&str, i64> = body["output"]
            .as_array()
            .unwrap()
            .iter()
            .map(|file| (file["type"].as_str().unwrap(), file["count"].as_i64().unwrap()))
            .collect();
        assert_eq!((files["Patient"], files["Observation"]), (counts[0], counts[1]), "{method} {target}: {body}");
        assert_eq!((&body["status"], &body["requiresAccessToken"]), (&json!("completed"), &json!(false)));
        assert_eq!(front.call("DELETE", &path, &[], b"").status, 202);
        assert_eq!(front.get(&path).status, 404);
    }
    let lenient = front.call("GET", "/fhir/$export?includeAssociatedData=x", &["prefer: respond-async, handling=lenient"], b"");
    assert_eq!(lenient.status, 202, "{lenient:?}");
    front.until(&lenient.headers["content-location"], |answer| answer.status == 200);
    for (target, status) in [
        ("/fhir/$export?nonsense=1", 422),
        ("/fhir/$export?patient=pt-1", 422),
        ("/fhir/$export?_type=Custom", 400),
        ("/fhir/Group/none/$export", 404),
    ] {
        let answer = front.get(target);
        assert_eq!((answer.status, &answer.json()["resourceType"]), (status, &json!("OperationOutcome")), "{target}");
    }
}

fn calls(front: &Front) {
    let call = |method: &str| front.post("/rpc", &json!({"method": format!("aidbox.bulk/{method}")}));
    let checked = call("storage-healthcheck");
    assert_eq!((checked.status, checked.kind(), &checked.json()["result"]["message"]), (200, "application/json", &json!("ok")));
    assert_eq!(call("import-status").json(), json!({"error": {"message": "No active imports"}}));
    let file = File::new(b"{\"resourceType\":\"Patient\",\"id\":\"pt-4\"}\n{\"id\":\"x\",\"n\":1.10}\n");
    let begun = front.post("/rpc", &json!({"method": "aidbox.bulk/import-start", "params": {"input": [{"url": file.url()}]}}));
    assert_eq!((begun.status, &begun.json()["result"]["status"]), (200, &json!("in-progress")), "{begun:?}");
    wait_until("the import has ended", || call("import-status").json()["result"]["status"] == "failed");
    // Numbers keep their digits all the way.
    let errors = call("import-errors").text();
    assert!(errors.contains("1.10") && errors.contains("\"line_no\": 2"), "{errors}");
    assert_eq!(call("import-cancel").status, 422);
    let several = front.post("/rpc", &json!([{"method": "aidbox.bulk/import-status"}, {"method": "nothing"}]));
    assert_eq!((several.status, several.json().as_array().unwrap().len()), (200, 2));
    let bucket = server_directory();
    let load = |method: &str| {
        let params = json!({"bucket": format!("file://{}", bucket.path().display())});
        front.post("/rpc", &json!({"method": format!("aidbox.bulk/{method}"), "params": params}))
    };
    assert_eq!((load("load-from-bucket-status").status, load("load-from-bucket").status), (422, 200));
}

fn refusals(front: &Front, poor: &Front, client: &mut Client) {
    for (method, target, allowed) in [
        ("POST", "/Patient/$dump", "GET"),
        ("HEAD", "/Patient/$dump", "GET"),
        ("PUT", "/fhir/$export", "GET, POST"),
        ("GET", "/rpc", "POST"),
    ] {
        let answer = front.call(method, target, &[], b"");
        assert_eq!((answer.status, answer.headers.get("allow").map(String::as_str)), (405, Some(allowed)), "{method} {target}");
    }
    for target in ["/Unknown/$dump", "/fhir/Patient/$dump", "/nothing", "/fhir/$dump-sql"] {
        assert_eq!(front.get(target).status, 404, "{target}");
    }
    assert_eq!(front.get("/Patient/$dump?_since=yesterday").status, 400);
    assert_eq!(front.post("/$load", &json!({"sauce": 1})).status, 400);
    assert_eq!(front.post("/fhir/$export", &json!({})).status, 422);
    let broken = front.call("POST", "/$load", &["content-type: application/json"], b"{\"source\": ");
    assert!([400, 422].contains(&broken.status), "{broken:?}");
    assert_eq!(front.call("POST", "/$load", &["content-type: application/json"], &vec![b' '; 2 << 20]).status, 413);
    for (method, target, body) in [
        ("GET", "/Patient/$dump", json!(null)),
        ("POST", "/$dump-sql", json!({"query": "select * from patient"})),
        ("POST", "/$load", json!({"source": "/etc/passwd"})),
        ("POST", "/$import", json!({"inputs": [{"resourceType": "Patient", "url": "https://example.org/x"}]})),
        ("GET", "/BulkImportStatus/one", json!(null)),
        ("GET", "/fhir/$export", json!(null)),
    ] {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = poor.call(method, target, &["content-type: application/json"], body.as_bytes());
        assert_eq!(answer.status, 403, "{method} {target}: {answer:?}");
    }
    let before = value(client, "select count(*) || ' ' || (select count(*) from bulk.job) from patient");
    // Bytes that no client library would send.
    for line in
        [&b"GET /Patient/\xff\xfe/$dump"[..], b"GET /\xd0\x9f/$dump", b"GET /Patient/$dump?\xff=1", b"GET /BulkImportStatus/\xd0\x9f\xff"]
    {
        let status = front.raw(line);
        assert!((400..500).contains(&status), "{}: {status}", String::from_utf8_lossy(line));
    }
    let agent = front.call(
        "GET",
        "/Patient/$dump",
        &["user-agent: \u{41f}", "prefer: \u{41f}", "x-bulk-target: /x\u{41f}", "range: bytes=1-2"],
        b"",
    );
    assert!([200, 400].contains(&agent.status), "{agent:?}");
    let nul = front.call(
        "POST",
        "/$import",
        &["content-type: application/json"],
        br#"{"id": "a\u0000b", "inputs": [{"resourceType": "Patient", "url": "/x"}]}"#,
    );
    assert!([400, 422].contains(&nul.status), "{nul:?}");
    // In words of its own.
    for (method, target, status) in
        [("POST", "/$import?x=1", 400), ("GET", "/fhir/$import", 405), ("GET", "/BulkImportStatus/one?x=1", 400)]
    {
        let answer = front.call(method, target, &["content-type: application/json"], b"");
        assert_eq!((answer.status, answer.json()["message"].is_string()), (status, true), "{method} {target}: {answer:?}");
    }
    let long = "x".repeat(70_000);
    for segment in
        ["patient;drop%20table%20patient", "patient'--", "..", "..%2f..%2fetc%2fpasswd", "%00", "a%0d%0aset-cookie:%20x=1", "%ff", &long]
    {
        for target in [
            format!("/{segment}/$dump"),
            format!("/../{segment}/$dump"),
            format!("/BulkImportStatus/{segment}"),
            format!("/fhir/$export-status/{segment}"),
            format!("/fhir/Group/{segment}/$export"),
            format!("/Patient/$dump?{segment}=1"),
            format!("/Patient/$dump?_since={segment}"),
            format!("/fhir/$export?{segment}=1"),
        ] {
            let answer = front.get(&target);
            assert!((400..500).contains(&answer.status), "{target}: {answer:?}");
            assert!(!answer.headers.contains_key("set-cookie"), "{target}: {answer:?}");
        }
    }
    let injected = front.post("/$import", &json!({"id": "a\r\nset-cookie: x=1", "inputs": [{"resourceType": "Patient", "url": "/x"}]}));
    assert_eq!((injected.status, injected.headers.get("set-cookie")), (400, None));
    assert_eq!(value(client, "select count(*) || ' ' || (select count(*) from bulk.job) from patient"), before);
}
