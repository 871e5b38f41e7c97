//! Every way in which an answer may tell its end, with every way in which it may break off, for every reader: whole or an error, no third.

use crate::support::buckets;
use crate::support::cluster::{Database, server_directory, shared};
use crate::support::imports;
use crate::support::servers::{free_port, read_head};
use crate::support::source::{self, File, Nginx, gzip};
use crate::support::statement::{failure, value};
use crate::support::trial::{SERVER, parts, test};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;

parts!(SERVER);

/// Rows of a case.
const ROWS: usize = 300;
/// Bytes of a chunk.
const CHUNK: usize = 1000;

/// How an answer tells its end: its version, its headers but for the length, whether it has one, and whether it comes in chunks.
#[derive(Debug, Clone, Copy)]
struct Framing {
    version: &'static str,
    headers: &'static str,
    length: bool,
    chunks: bool,
    /// Whether that is enough.
    tells: bool,
}

const FRAMINGS: [Framing; 13] = [
    Framing { version: "1.1", headers: "", length: true, chunks: false, tells: true },
    Framing { version: "1.0", headers: "", length: true, chunks: false, tells: true },
    Framing { version: "1.1", headers: "", length: false, chunks: false, tells: false },
    Framing { version: "1.0", headers: "", length: false, chunks: false, tells: false },
    Framing { version: "1.1", headers: "Transfer-Encoding: chunked\r\n", length: false, chunks: true, tells: true },
    Framing { version: "1.1", headers: "Transfer-Encoding: Chunked\r\n", length: true, chunks: true, tells: true },
    Framing { version: "1.1", headers: "Transfer-Encoding: gzip, chunked\r\n", length: false, chunks: true, tells: true },
    Framing { version: "1.1", headers: "Transfer-Encoding: identity\r\n", length: false, chunks: false, tells: false },
    Framing { version: "1.1", headers: "Transfer-Encoding: gzip\r\n", length: false, chunks: false, tells: false },
    Framing { version: "1.1", headers: "Transfer-Encoding: chunked, gzip\r\n", length: false, chunks: true, tells: false },
    Framing { version: "1.0", headers: "Transfer-Encoding: chunked\r\n", length: false, chunks: false, tells: false },
    Framing { version: "1.1", headers: "Content-Encoding: gzip\r\n", length: true, chunks: false, tells: true },
    Framing {
        version: "1.1",
        headers: "Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
        length: false,
        chunks: true,
        tells: true,
    },
];

/// Where it breaks off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Nowhere,
    Head,
    Body,
    /// Behind a line of plain text, or a member of gzip.
    Part,
    /// Before the last chunk.
    LastChunk,
    /// Of the last chunk, of gzip or of the line.
    Trailer,
    /// In the body, by a reset.
    Reset,
}

const CUTS: [Cut; 7] = [Cut::Nowhere, Cut::Head, Cut::Body, Cut::Part, Cut::LastChunk, Cut::Trailer, Cut::Reset];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    Plain,
    Gzip,
    /// Of several members.
    Members,
}

type Case = (Framing, Cut, Content);

fn cases() -> Vec<Case> {
    let contents = [Content::Plain, Content::Gzip, Content::Members];
    let all = FRAMINGS.into_iter().flat_map(|framing| CUTS.into_iter().map(move |cut| (framing, cut)));
    all.flat_map(|(framing, cut)| contents.map(|content| (framing, cut, content)))
        .filter(|(framing, cut, _)| framing.chunks || *cut != Cut::LastChunk)
        .collect()
}

/// The bytes of an answer, and whether the connection is reset behind them. Rows have ids that begin as told.
fn answer((framing, cut, content): Case, ids: &str) -> (Vec<u8>, bool) {
    let lines = |from: usize, to: usize| (from..to).map(|n| format!("{{\"id\":\"{ids}-{n}\"}}\n")).collect::<String>().into_bytes();
    let parts: Vec<Vec<u8>> = match content {
        Content::Plain => vec![lines(0, ROWS / 2), lines(ROWS / 2, ROWS)],
        Content::Gzip => vec![gzip(&lines(0, ROWS))],
        Content::Members => vec![gzip(&lines(0, ROWS / 2)), gzip(&lines(ROWS / 2, ROWS))],
    };
    let whole = parts.concat();
    let kept = match cut {
        Cut::Body | Cut::Reset => whole.len() / 2 + 7,
        Cut::Part => parts[0].len(),
        Cut::Trailer if !framing.chunks => whole.len() - 4,
        _ => whole.len(),
    };
    // The one part of a gzip is all of it.
    let kept = if kept == whole.len() && cut == Cut::Part { kept - 1 } else { kept };
    let length = if framing.length { format!("Content-Length: {}\r\n", whole.len()) } else { String::new() };
    let head = format!("HTTP/{} 200 OK\r\n{}{length}\r\n", framing.version, framing.headers);
    if cut == Cut::Head {
        return (head.as_bytes()[..head.len() - 3].to_vec(), false);
    }
    let mut sent = head.into_bytes();
    if framing.chunks {
        for chunk in whole[..kept].chunks(CHUNK) {
            sent.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            sent.extend_from_slice(chunk);
            sent.extend_from_slice(b"\r\n");
        }
        match cut {
            Cut::Nowhere => sent.extend_from_slice(b"0\r\n\r\n"),
            Cut::Trailer => sent.extend_from_slice(b"0\r"),
            _ => {}
        }
    } else {
        sent.extend_from_slice(&whole[..kept]);
    }
    (sent, cut == Cut::Reset)
}

/// Answers each case under its number, and a listing of a bucket: `/bucket/Patient.<number>`.
fn serve() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for connection in listener.incoming().take(20_000) {
            let Ok(mut connection) = connection else { continue };
            thread::spawn(move || {
                let request = read_head(&mut connection);
                let target = request.split(' ').nth(1).unwrap_or_default().to_owned();
                let (sent, reset) = match target.split(['/', '?', '.']).rfind(|part| part.parse::<usize>().is_ok()) {
                    Some(number) if !target.contains("list-type") => {
                        let reader = target.split('/').nth(1).unwrap_or_default();
                        let case @ (.., content) = cases()[number.parse::<usize>().unwrap()];
                        match request.starts_with("HEAD ") {
                            true => answer((FRAMINGS[0], Cut::Nowhere, content), &format!("{reader}-{number}")),
                            false => answer(case, &format!("{reader}-{number}")),
                        }
                    }
                    _ => (listing(), false),
                };
                let _ = connection.write_all(&sent);
                if reset {
                    let _ = rustix::net::sockopt::set_socket_linger(&connection, Some(std::time::Duration::ZERO));
                }
            });
        }
    });
    port
}

/// Those that the bucket has, whose files are tried again by themselves: one content of each.
fn in_bucket() -> impl Iterator<Item = usize> {
    cases().into_iter().enumerate().filter(|(_, (.., content))| *content == Content::Members).map(|(number, _)| number)
}

fn listing() -> Vec<u8> {
    let object = |number: usize| {
        format!(
            "<Contents><Key>Patient.{number}.ndjson</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified><ETag>\"e\"</ETag><Size>1</Size><StorageClass>STANDARD</StorageClass></Contents>"
        )
    };
    let objects: String = in_bucket().map(object).collect();
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>bucket</Name><Prefix></Prefix>\
         <KeyCount>{}</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>{objects}</ListBucketResult>",
        in_bucket().count()
    );
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
        .into_bytes()
}

/// What must come of a case: all its rows, or an error.
fn judge(what: &str, case: Case, stored: usize, error: Option<&str>) {
    let (framing, cut, _) = case;
    match error {
        None => assert!(stored == ROWS && framing.tells, "{what}: {stored} rows and no error: {case:?}"),
        Some(error) => {
            assert!(!(cut == Cut::Nowhere && framing.tells), "{what}: {error}: {case:?}");
            assert!(
                framing.tells || matches!(cut, Cut::Head | Cut::Reset) || error.contains("neither how long"),
                "{what}: {error}: {case:?}"
            );
        }
    }
}

/// Rows whose ids begin so, by the number of their case.
fn stored(client: &mut postgres::Client, reader: &str) -> BTreeMap<usize, usize> {
    let query = format!("select split_part(id, '-', 2)::int, count(*) from patient where id like '{reader}-%' group by 1");
    client.query(&query, &[]).unwrap().iter().map(|row| (row.get::<_, i32>(0) as usize, row.get::<_, i64>(1) as usize)).collect()
}

fn prepared(database: &Database) -> postgres::Client {
    let mut client = database.connect();
    client.batch_execute("select bulk.create_resource_table('Patient')").unwrap();
    client
}

test!("an answer is whole or an error, however it tells its end and wherever it breaks off", table);
fn table() {
    let database = shared().database();
    let mut client = prepared(&database);
    let port = serve();
    let cases = cases();
    assert!(cases.len() >= 200, "{}", cases.len());
    // Loads, one by one.
    for (number, case) in cases.iter().enumerate() {
        let load = format!("select bulk.load('http://127.0.0.1:{port}/load/{number}', 'Patient')");
        let error = client.batch_execute(&load).err().map(|error| error.as_db_error().unwrap().message().to_owned());
        let rows = stored(&mut client, &format!("load-{number}")).get(&number).copied().unwrap_or_default();
        assert!(rows == 0 || error.is_none(), "a load left {rows} rows and {error:?}: {case:?}");
        judge("load", *case, rows, error.as_deref());
        if case.1 == Cut::Nowhere && !case.0.tells && !case.0.chunks {
            let load = load.replace("'Patient')", "'Patient', options => '{\"accept-unframed\": true}')");
            client.batch_execute(&load).unwrap_or_else(|error| panic!("{error:?}: {case:?}"));
        }
    }
    // An import of them all.
    let inputs: Vec<Value> = (0..cases.len())
        .map(|number| json!({"resourceType": "Patient", "url": format!("http://127.0.0.1:{port}/import/{number}")}))
        .collect();
    assert_eq!(imports::call(&mut client, &json!({"id": "i", "allowedRetryCount": 0, "inputs": inputs})).0, 200);
    assert_eq!(imports::wait(&mut client, "i"), "error");
    let rows = stored(&mut client, "import");
    let tasks = client.query("select source, state, message from bulk.job_file where job_id = 'i'", &[]).unwrap();
    assert_eq!(tasks.len(), cases.len());
    for task in &tasks {
        let (source, state, message): (String, String, Option<String>) = (task.get(0), task.get(1), task.get(2));
        let number: usize = source.rsplit('/').next().unwrap().parse().unwrap();
        assert!(state == "done" || state == "error", "{state}");
        let error = (state == "error").then(|| message.unwrap_or_default());
        judge("import", cases[number], rows.get(&number).copied().unwrap_or_default(), error.as_deref());
    }
    // A bucket.
    let answer = buckets::load(&mut client, &format!("http://127.0.0.1:{port}"), json!({"upsert?": true}));
    buckets::done(&mut client, &answer);
    let rows = stored(&mut client, "bucket");
    let files = client.query("select file, status, message from bulk.loader_file", &[]).unwrap();
    assert_eq!(files.len(), in_bucket().count());
    for file in &files {
        let (name, status, message): (String, String, Option<String>) = (file.get(0), file.get(1), file.get(2));
        let number: usize = name.split('.').nth(1).unwrap().parse().unwrap();
        assert!(status == "done" || status == "error", "{status}");
        let error = (status == "error").then(|| message.unwrap_or_default());
        let rows = rows.get(&number).copied().unwrap_or_default();
        assert!(rows == 0 || error.is_none(), "a file left {rows} rows and {error:?}");
        judge("bucket", cases[number], rows, error.as_deref());
    }
    println!("{} answers to loads and imports, {} to a bucket's", cases.len(), files.len());
}

/// Bytes that it sends of a range at least: a block of lines, so that each answer brings some.
const SHORTEST: usize = 600_000;

/// A server that knows ranges and sends less of one than was asked for, or another: how it does is its path.
fn ranges(content: Vec<u8>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut connection in listener.incoming().take(1000).flatten() {
            let request = read_head(&mut connection).to_ascii_lowercase();
            let from = request.split("range: bytes=").nth(1).and_then(|rest| rest.split('-').next()).and_then(|from| from.parse().ok());
            let from: usize = from.unwrap_or(0);
            let (rest, total) = (&content[from..], content.len());
            let half = rest.len().div_ceil(2).max(SHORTEST).min(rest.len());
            let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
            // What it says that it sends, of how much, and what it sends.
            let (first, last, of, sent) = match path.as_str() {
                _ if from == 0 => (0, total - 1, total.to_string(), rest),
                "/short" => (from, from + half - 1, total.to_string(), &rest[..half]),
                "/silent" => (from, from + half - 1, "*".to_owned(), &rest[..half]),
                "/lies" => (from, total - 1, total.to_string(), &rest[..half]),
                "/shifted" => (from + 10, total - 1, total.to_string(), &rest[10.min(rest.len())..]),
                "/smaller" => (from, from + half - 1, (from + half).to_string(), &rest[..half]),
                _ => (from, total - 1, total.to_string(), rest),
            };
            let status = if from == 0 { "200 OK" } else { "206 Partial Content" };
            let head = format!(
                "HTTP/1.1 {status}\r\nAccept-Ranges: bytes\r\nETag: \"e\"\r\nContent-Range: bytes {first}-{last}/{of}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                sent.len()
            );
            let _ = connection.write_all(head.as_bytes()).and_then(|()| connection.write_all(sent));
        }
    });
    port
}

test!("a range that is shorter than it was asked for is asked for again, another is an error", short_ranges);
fn short_ranges() {
    let database = shared().database();
    let mut client = prepared(&database);
    client.batch_execute("set bulk.range_size = '1MB'").unwrap();
    let content = buckets::lines(0, 60_000);
    let port = ranges(content);
    for (path, expected) in
        [("whole", "done"), ("short", "done"), ("silent", "done"), ("lies", "done"), ("shifted", "error"), ("smaller", "error")]
    {
        client.batch_execute("truncate patient").unwrap();
        let retries = if expected == "done" { 20 } else { 0 };
        let request =
            json!({"id": path, "allowedRetryCount": retries, "inputs": imports::patient_input(&format!("http://127.0.0.1:{port}/{path}"))});
        assert_eq!(imports::call(&mut client, &request).0, 200);
        assert_eq!(imports::wait(&mut client, path), expected, "{path}");
        let ranges = value(&mut client, &format!("select count(*) from bulk.job_file where job_id = '{path}'"));
        assert!(ranges.parse::<u32>().unwrap() > 2, "{path}: {ranges}");
        assert_eq!(value(&mut client, "select count(*) from patient") == "60000", expected == "done", "{path}");
    }
}

/// Changes a file that is being read.
type Change = fn(&Path, &[u8]);

test!("a file that changes while it is read is an error, whoever reads it", changing_files);
fn changing_files() {
    let database = shared().database();
    let mut client = prepared(&database);
    // Rows wait in the middle of the file.
    client
        .batch_execute(
            "create function wait() returns trigger language plpgsql as $$ begin perform pg_advisory_xact_lock_shared(77); return new; end $$; \
             create trigger wait before insert on patient for each row execute function wait()",
        )
        .unwrap();
    // Longer than what is read ahead.
    let padding = "x".repeat(4000);
    let content: Vec<u8> = (0..12_000).flat_map(|n| format!("{{\"id\":\"{n}\",\"language\":\"{padding}\"}}\n").into_bytes()).collect();
    let changes: [(&str, Change); 4] = [
        ("shrinks", |path, content| OpenOptions::new().write(true).open(path).unwrap().set_len(content.len() as u64 * 9 / 10).unwrap()),
        ("grows", |path, _| OpenOptions::new().append(true).open(path).unwrap().write_all(b"{\"id\":\"more\"}\n").unwrap()),
        ("is overwritten", |path, content| {
            let file = OpenOptions::new().write(true).open(path).unwrap();
            // Within a value, so that each line is as good as before.
            let at = (content.len() / 2..).find(|at| content[*at..at + 1000].iter().all(|byte| *byte == b'x')).unwrap();
            file.write_all_at(&[b'y'; 1000], at as u64).unwrap();
        }),
        ("is another", |path, content| {
            fs::write(path.with_extension("new"), content).unwrap();
            fs::rename(path.with_extension("new"), path).unwrap();
        }),
    ];
    for (what, change) in changes {
        for reader in ["load", "import", "transaction"] {
            let file = File::new(&content);
            let path = url::Url::parse(&file.url()).unwrap().to_file_path().unwrap();
            let mut holder = database.connect();
            holder.batch_execute("begin; select pg_advisory_xact_lock(77)").unwrap();
            let call = match reader {
                "load" => format!("select bulk.load('{}', 'Patient')", file.url()),
                _ => {
                    let mode = if reader == "load" || reader == "import" { "bulk" } else { "transaction" };
                    format!(
                        "select bulk.import('{}')",
                        json!({"id": format!("{what} {reader}"), "mode": mode, "inputs": imports::patient_input(&file.url())})
                    )
                }
            };
            let mut session = database.connect();
            let asked = thread::spawn(move || session.batch_execute(&call).err());
            let waits = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
            crate::support::statement::wait_until("it waits", || value(&mut client, waits) == "1");
            change(&path, &content);
            holder.batch_execute("rollback").unwrap();
            let error = asked.join().unwrap().map(|error| error.as_db_error().unwrap().message().to_owned());
            let error = match reader {
                "load" => error.unwrap_or_else(|| panic!("a file that {what} is loaded")),
                _ => {
                    assert_eq!(imports::wait(&mut client, &format!("{what} {reader}")), "error", "{what} {reader}");
                    value(&mut client, &format!("select message from bulk.job where id = '{what} {reader}'"))
                }
            };
            assert_eq!(error, "source has changed since it was read first", "{what} {reader}");
            if reader != "import" {
                assert_eq!(value(&mut client, "select count(*) from patient"), "0", "{what} {reader}");
            }
            client.batch_execute("truncate patient, patient_history").unwrap();
        }
    }
    assert_eq!(value(&mut client, "select count(*) from bulk.job where state = 'done'"), "0");
}

/// Relays connections, and ends each behind so many bytes of the server's.
fn cutting(to: u16, most: usize) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for client in listener.incoming().take(1000).flatten() {
            thread::spawn(move || {
                let server = TcpStream::connect(("127.0.0.1", to)).unwrap();
                let (mut up, mut down) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || std::io::copy(&mut up, &mut down));
                let _ = std::io::copy(&mut std::io::Read::take(&server, most as u64), &mut &client);
                let _ = client.shutdown(std::net::Shutdown::Both);
                let _ = server.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    port
}

test!("over TLS an end that the server says is one, and no other", tls);
fn tls() {
    let database = shared().database();
    let mut client = prepared(&database);
    let directory = server_directory();
    let path = directory.path();
    // What stands behind it tells no length, and it makes no chunks.
    let (behind, port) = (serve(), free_port());
    let unframed = |content| {
        cases().iter().position(|(framing, cut, kind)| {
            *cut == Cut::Nowhere && *kind == content && !framing.length && !framing.chunks && framing.headers.is_empty()
        })
    };
    let behind_it =
        format!("{} chunked_transfer_encoding off; location / {{ proxy_pass http://127.0.0.1:{behind}; }}", source::tls(path, port));
    let _nginx = Nginx::start(path, &behind_it);
    client.batch_execute(&format!("set bulk.ca_file = '{}'", path.join("ca.pem").display())).unwrap();
    for content in [Content::Plain, Content::Gzip, Content::Members] {
        let number = unframed(content).unwrap();
        let load = |port: u16| format!("bulk.load('https://127.0.0.1:{port}/load/{number}', 'Patient')");
        assert_eq!(value(&mut client, &load(port)), r#"{"total": 300}"#, "{content:?}");
        client.batch_execute("truncate patient").unwrap();
        // Everywhere but in the handshake: in the head, the body, what says the end.
        let mut whole = 0;
        for most in (1500..9000).step_by(150) {
            let port = cutting(port, most);
            match client.query_one(&format!("select ({})::text", load(port)), &[]) {
                Ok(answer) => {
                    assert_eq!(answer.get::<_, String>(0), r#"{"total": 300}"#, "{most} bytes: {content:?}");
                    whole += 1;
                }
                Err(_) => assert_eq!(value(&mut client, "select count(*) from patient"), "0"),
            }
            client.batch_execute("truncate patient").unwrap();
        }
        assert!(whole > 0 && whole < 50, "{whole}: {content:?}");
    }
    assert_eq!(
        failure(
            &mut client,
            &format!("select bulk.load('http://127.0.0.1:{behind}/load/{}', 'Patient')", unframed(Content::Members).unwrap())
        )
        .code,
        "22P04"
    );
}
