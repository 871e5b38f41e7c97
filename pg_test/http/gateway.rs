//! examples/gateway: a streaming HTTP layer, over real sockets.

use crate::support::cluster::checked;
use crate::support::front::{self, Front};
use crate::support::gateways::{asker, gateway, program};
use crate::support::servers::Server;
use crate::support::source::{File, Manner, Slow, gzip};
use crate::support::statement::{value, wait_until};
use crate::support::trial::test;
use postgres::Client;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

/// `user:password` of basic authorization, in base64.
const CLIENT: &str = "authorization: Basic YnVsay1jbGllbnQ6c2VjcmV0";
const POOR: &str = "authorization: Basic cG9vcjpzZWNyZXQ=";
const WRONG: &str = "authorization: Basic YnVsay1jbGllbnQ6d3Jvbmc=";

test!("every operation behind the gateway answers as the contract says", contract);
fn contract() {
    let cluster = front::cluster();
    let database = cluster.database();
    let (mut client, _directory) = front::prepare(&database);
    let gateway = gateway(&cluster, &database);
    front::contract(&asker(&gateway, CLIENT), &asker(&gateway, POOR), &mut client);
}

test!("the gateway lets in whom the database lets in", logins);
fn logins() {
    let cluster = front::cluster();
    let database = cluster.database();
    let (mut client, _directory) = front::prepare(&database);
    let gateway = gateway(&cluster, &database);
    // Whoever starts the gateway may give it options of connections.
    let shown =
        asker(&gateway, CLIENT).post("/$dump-sql", &serde_json::json!({"query": "select current_setting('bulk.export_file_rows')"}));
    assert_eq!((shown.status, shown.text().trim()), (200, "500"), "{shown:?}");
    let nobody = Front { authorization: None, ..asker(&gateway, "") };
    for answer in [nobody.get("/Account/$dump"), asker(&gateway, WRONG).get("/Account/$dump")] {
        assert_eq!((answer.status, answer.headers["www-authenticate"].as_str()), (401, "Basic realm=\"bulk\""), "{answer:?}");
        assert_eq!(answer.json()["issue"][0]["code"], "login");
    }
    for authorization in ["authorization: Basic !!!", "authorization: Bearer x"] {
        let malformed = asker(&gateway, authorization).get("/Account/$dump");
        assert_eq!((malformed.status, malformed.kind()), (401, "application/fhir+json"), "{malformed:?}");
    }
    assert_eq!(asker(&gateway, CLIENT).get("/Account/$dump").status, 200);
    // Passwords and requests' headers reach no query.
    client.batch_execute(&format!("alter database {} set log_statement = 'all'", database.name)).unwrap();
    assert_eq!(asker(&gateway, CLIENT).get("/Account/$dump").status, 200);
    wait_until("it is logged", || cluster.log().contains("bulk.http($1"));
    let log = cluster.log();
    assert!(!log.contains("YnVsay1jbGllbnQ6c2VjcmV0") && !log.contains("Basic "), "{log}");
    let nul = asker(&gateway, "authorization: Basic ADp4").get("/Account/$dump");
    assert_eq!(nul.status, 401, "{nul:?}");
    // Who may not connect.
    client.batch_execute(&format!("revoke connect on database {} from public", database.name)).unwrap();
    let refused = asker(&gateway, CLIENT).get("/Account/$dump");
    assert!(refused.status == 403 && refused.text().contains("permission denied for database"), "{refused:?}");
    client.batch_execute(&format!("grant connect on database {} to public", database.name)).unwrap();
    // Whom the server asks for no password is let in with none, nor with any.
    let socket = cluster.data_directory().parent().unwrap().display().to_string();
    let trusting = cluster.keywords(&database.name).replace("127.0.0.1", &socket);
    let open = Server::start(|port| {
        let mut command = Command::new(program());
        command.arg(format!("127.0.0.1:{port}")).arg(&trusting);
        command
    });
    let wrong = asker(&gateway, WRONG).get("/Account/$dump");
    for authorization in [CLIENT, WRONG] {
        // And whoever asks is not told.
        let refused = asker(&open, authorization).get("/Account/$dump");
        assert_eq!((refused.status, refused.text()), (401, wrong.text()), "{refused:?}");
    }
    assert_eq!(asker(&gateway, CLIENT).raw(b"get /Account/$dump"), 501);
    let with_password = format!("{} password=secret", cluster.keywords(&database.name));
    let output = Command::new("timeout").arg("20").arg(program()).args(["127.0.0.1:0", &with_password]).output().unwrap();
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("no password"), "{output:?}");
    // A database that is gone.
    cluster.stop("fast");
    assert_eq!(asker(&gateway, CLIENT).get("/Account/$dump").status, 503);
    cluster.boot();
    assert_eq!(asker(&gateway, CLIENT).get("/Account/$dump").status, 200);
}

test!("the gateway reads and writes YAML", yaml);
fn yaml() {
    let cluster = front::cluster();
    let database = cluster.database();
    let (_client, _directory) = front::prepare(&database);
    let gateway = gateway(&cluster, &database);
    let asker = asker(&gateway, CLIENT);
    let both = ["content-type: text/yaml", "accept: text/yaml"];
    let answer = asker.call("POST", "/rpc", &both, b"method: aidbox.bulk/storage-healthcheck\n");
    assert_eq!((answer.status, answer.kind()), (200, "text/yaml"), "{answer:?}");
    assert!(answer.text().contains("message: ok"), "{answer:?}");
    // The answer is YAML for whoever writes it, unless JSON is asked for; and for whoever asks for it.
    assert_eq!(asker.call("POST", "/rpc", &both[..1], b"method: x").kind(), "text/yaml");
    assert_eq!(
        asker.call("POST", "/rpc", &["content-type: text/yaml", "accept: application/json"], b"method: x").kind(),
        "application/json"
    );
    assert_eq!(
        asker.call("GET", "/BulkImportStatus/none", &["accept: text/yaml"], b"").text().trim(),
        "message: there is no import \"none\""
    );
    let broken = asker.call("POST", "/rpc", &both, b"a: [b");
    assert_eq!((broken.status, broken.kind()), (400, "text/yaml"), "{broken:?}");
    let file = File::new(b"{\"id\":\"1\"}\n");
    let load = format!(
        "source: '{}'\nvalidation:\n  enable: off # | async | on\n  checks: struct # | refs | all\nmethod: copy # | insert\n",
        file.url()
    );
    let answer = asker.call("POST", "/Patient/$load", &both, load.as_bytes());
    assert_eq!((answer.status, answer.text().trim()), (200, "total: 1"), "{answer:?}");
    let query = "query: select id, resource#>>'{name,0,given,0}' from patient\n";
    let tsv = asker.call("POST", "/$dump-sql", &both, query.as_bytes());
    assert_eq!((tsv.kind(), tsv.text().as_str()), ("text/tab-separated-values", "1\t\\N\n"), "{tsv:?}");
}

/// A gigabyte, as it is asked for.
const GIGABYTE: &str = r#"{"query": "select repeat('x', 1000) from generate_series(1, 1000000)"}"#;

/// Asks by hand, to stop reading at will.
fn ask(gateway: &Server, target: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", gateway.port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let request = format!(
        "POST {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{CLIENT}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

/// Peak of its memory, in kB.
fn peak(gateway: &Server) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", gateway.process.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn backends(client: &mut Client, condition: &str) -> String {
    value(client, &format!("select count(*) from pg_stat_activity where application_name = 'bulk gateway' and {condition}"))
}

test!("a client that stops reading stops the backend, and the gateway keeps nothing for it", stalled);
fn stalled() {
    let cluster = front::cluster();
    let database = cluster.database();
    let (mut client, _directory) = front::prepare(&database);
    let gateway = gateway(&cluster, &database);
    let mut stream = BufReader::new(ask(&gateway, "/$dump-sql", GIGABYTE));
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        stream.read_line(&mut line).unwrap();
    }
    let waits = "state = 'active' and wait_event = 'ClientWrite'";
    // Its buffers may fill for a moment; then it goes on waiting.
    let mut waited = 0;
    wait_until("the backend waits for its client", || {
        waited = if backends(&mut client, waits) == "1" { waited + 1 } else { 0 };
        waited == 100
    });
    let held = peak(&gateway);
    assert!(held < 40_000, "{held} kB");
    // And goes on when it is read again: all of it comes, to the last chunk.
    let (mut whole, mut size) = (0, 1);
    while size > 0 {
        line.clear();
        stream.read_line(&mut line).unwrap();
        size = u64::from_str_radix(line.trim(), 16).unwrap_or_else(|error| panic!("{error}: {line:?} after {whole}"));
        whole += io::copy(&mut stream.by_ref().take(size), &mut io::sink()).unwrap();
        line.clear();
        stream.read_line(&mut line).unwrap();
    }
    assert_eq!(whole, 1_001_000_000);
    assert!(peak(&gateway) < 40_000, "{} kB", peak(&gateway));
    wait_until("the backend is gone", || backends(&mut client, "true") == "0");
}

test!("a client that leaves ends its query", leaving);
fn leaving() {
    let cluster = front::cluster();
    let database = cluster.database();
    let (mut client, _directory) = front::prepare(&database);
    let gateway = gateway(&cluster, &database);
    let source =
        Slow::start(gzip(&b"{\"id\":\"1\"}\n".repeat(1000)), Manner { most: 20, hangs: true, pause: Duration::ZERO, ranges: true });
    let load = format!("{{\"source\": \"{}\"}}", source.url());
    let sleeping = r#"{"query": "select id, pg_sleep(600) from (values (1), (2)) x(id)"}"#;
    client.batch_execute(&format!("alter database {} set log_min_messages = 'error'", database.name)).unwrap();
    let cancels = || cluster.log().matches("canceling statement due to user request").count();
    let losses = || cluster.log().matches("connection to client lost").count();
    for (target, body, waits) in
        [("/$dump-sql", GIGABYTE, "ClientWrite"), ("/$dump-sql", sleeping, "PgSleep"), ("/Patient/$load", load.as_str(), "Extension")]
    {
        let tries = [(); 3].map(|()| {
            let stream = ask(&gateway, target, body);
            wait_until("it is at work", || backends(&mut client, &format!("state = 'active' and wait_event = '{waits}'")) == "1");
            let (cancelled, lost) = (cancels(), losses());
            // Nothing else would end the query within ten minutes.
            drop(stream);
            wait_until("the query is over", || backends(&mut client, "true") == "0");
            // One that waits to write ends with its connection, which goes after the cancel; another may look for it just before.
            wait_until("why is told", || cancels() + losses() > cancelled + lost);
            cancels() > cancelled
        });
        assert!(body == GIGABYTE || tries.iter().filter(|cancelled| **cancelled).count() > 1, "{body}: {tries:?}");
    }
    assert_eq!(value(&mut client, "select to_regclass('patient') is null"), "true");
    // A gateway that is killed takes its queries with it.
    let stream = ask(&gateway, "/$dump-sql", sleeping);
    wait_until("it is at work", || backends(&mut client, "wait_event = 'PgSleep'") == "1");
    drop(gateway);
    wait_until("the query is over", || backends(&mut client, "true") == "0");
    drop(stream);
}

test!("a stream that fails on its way is no whole body", broken);
fn broken() {
    let cluster = front::cluster();
    let database = cluster.database();
    let (_client, _directory) = front::prepare(&database);
    let gateway = gateway(&cluster, &database);
    let query = r#"{"query": "select repeat('x', 1000), 1 / (300000 - g) from generate_series(1, 400000) g"}"#;
    let url = format!("http://127.0.0.1:{}/$dump-sql", gateway.port);
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-o", "/dev/null", "-u", "bulk-client:secret", "-H", "content-type: application/json", "-d", query, &url]);
    let output = curl.output().unwrap();
    // CURLE_PARTIAL_FILE
    assert_eq!(output.status.code(), Some(18), "{output:?}");
    // Before 1.1 nothing tells an end from a failure: there is no stream.
    let old = Command::new("curl")
        .args(["-sS", "-0", "-u", "bulk-client:secret", "-d", query, "-w", "%{http_code}", "-o", "/dev/null", &url])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&old.stdout), "505");
    let ends = query.replace("300000", "500000");
    checked(Command::new("curl").args(["-sSf", "-o", "/dev/null", "-u", "bulk-client:secret", "-d", &ends, &url]));
}
