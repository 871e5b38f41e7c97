//! The options of a load: what they do to its lines, and how its source is asked.

use crate::cluster::{failure, server_directory, shared, value};
use crate::source::{Faulty, File, Nginx, Then, gzip};
use crate::test;
use libtest_mimic::Trial;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

pub fn tests() -> Vec<Trial> {
    vec![
        test("merge lays an object over every resource, strip-nulls takes nulls out, as the server's own functions do", changes),
        test("wrong options are errors that say what is expected", wrong),
        test("headers go to the source, and never to where a redirect leads", headers),
        test("what passes is tried again as often as asked, when the server asks", retries),
        test("a server that keeps silent ends in an error after the timeouts", timeouts),
    ]
}

fn changes() {
    let database = shared().database();
    let mut client = database.connect();
    let lines = [
        r#"{"id":"1","resourceType":"Patient"}"#,
        r#"{"id":"2","resourceType":"Patient","a":null,"n":1.10,"deep":{"x":null,"y":[null,{"z":null,"k":"v"}]},"managingOrganization":{"reference":"Organization/9"}}"#,
        r#"{"id":"3","resourceType":"Patient","a":1,"a":null,"b":null,"b":2,"extra":{"x":1}}"#,
        r#"{"id":"4","resourceType":"Patient","meta":{"profile":["p"],"versionId":"7"},"deceasedBoolean":true}"#,
    ];
    let file = File::new(lines.join("\n").as_bytes());
    let merge = r#"{"extra": {"n": 12345678901234567890.1230, "none": null}, "a": [1.10, "é\n"], "b": null}"#;
    for fast in ["on", "off"] {
        client.batch_execute(&format!("set bulk.fast_path = {fast}")).unwrap();
        for (options, expected) in [
            (format!(r#"{{"merge": {merge}}}"#), format!("line || '{merge}'")),
            (r#"{"strip-nulls": true}"#.to_owned(), "jsonb_strip_nulls(line)".to_owned()),
            (format!(r#"{{"strip-nulls": true, "merge": {merge}}}"#), format!("jsonb_strip_nulls(line || '{merge}')")),
            (r#"{"strip-nulls": false, "merge": null}"#.to_owned(), "line".to_owned()),
        ] {
            for call in [
                format!("bulk.load('{}', 'Patient', options => '{options}')", file.url()),
                format!("bulk.load('{{\"source\": \"{}\", {}', 'Patient')", file.url(), &options[1..]),
                format!("bulk.load('{{\"source\": \"{}\", \"resourceType\": \"Patient\", {}'::jsonb)", file.url(), &options[1..]),
            ] {
                client.batch_execute("drop table if exists patient, patient_history").unwrap();
                assert_eq!(value(&mut client, &call), r#"{"total": 4}"#, "{call}");
                for line in lines {
                    let wanted = value(
                        &mut client,
                        &format!(
                            "select (({expected}) #- '{{meta,versionId}}') - 'id' - 'resourceType' from (select '{line}'::jsonb as line) x"
                        ),
                    );
                    let id = value(&mut client, &format!("select '{line}'::jsonb->>'id'"));
                    assert_eq!(value(&mut client, &format!("select resource from patient where id = '{id}'")), wanted, "{call}: {line}");
                }
            }
        }
    }
    // What is laid over is in the format of the lines.
    let options = r#"{"merge": {"managingOrganization": {"reference": "Organization/1"}, "deceasedDateTime": "2020"}}"#;
    client.batch_execute(&format!("select bulk.load('{}', fhir => true, options => '{options}')", file.url())).unwrap();
    let stored = value(&mut client, "select resource from patient where id = '1'");
    assert_eq!(stored, r#"{"deceased": {"dateTime": "2020"}, "managingOrganization": {"id": "1", "resourceType": "Organization"}}"#);
}

fn wrong() {
    let database = shared().database();
    let mut client = database.connect();
    let file = File::new(b"{\"id\":\"1\"}\n");
    for options in [
        r#"{"merge": []}"#,
        r#"{"merge": "x"}"#,
        r#"{"merge": {"id": "1"}}"#,
        r#"{"merge": {"resourceType": "Goal"}}"#,
        r#"{"strip-nulls": "yes"}"#,
        r#"{"headers": ["x"]}"#,
        r#"{"headers": {"x": 1}}"#,
        r#"{"headers": {"x y": "1"}}"#,
        r#"{"headers": {"x": "1\r\nHost: evil"}}"#,
        r#"{"headers": {"Host": "evil"}}"#,
        r#"{"headers": {"content-length": "5"}}"#,
        r#"{"connect-timeout": -1}"#,
        r#"{"read-timeout": 1.5}"#,
        r#"{"retries": 101}"#,
        r#"{"retries": "3"}"#,
        r#"{"unknown": 1}"#,
        "[]",
        "null",
    ] {
        let error = failure(&mut client, &format!("select bulk.load('{}', 'Patient', options => '{options}')", file.url()));
        assert_eq!(error.code, "22023", "{options}: {error:?}");
    }
    // Deeper than a request may be, and no panic.
    let deep = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
    let error = failure(&mut client, &format!("select bulk.load('{}', 'Patient', options => '{deep}')", file.url()));
    assert_eq!(error.code, "22023", "{error:?}");
    let error = failure(
        &mut client,
        &format!("select bulk.load('{}', 'Patient', options => '{{\"merge\": {{\"x\": \"\\u0000\"}}}}'::text::jsonb)", file.url()),
    );
    assert_eq!(error.code, "22P05", "{error:?}");
}

fn headers() {
    let directory = server_directory();
    fs::write(directory.path().join("lines"), gzip(b"{\"id\":\"1\"}\n")).unwrap();
    let guarded = "location / { if ($http_x_key != 'k 1') { return 403; } if ($http_authorization != 'Bearer t') { return 401; } }";
    let nginx = Nginx::start(directory.path(), &format!("{guarded} location /inside {{ return 302 /lines; }}"));
    let other =
        Nginx::start(directory.path(), "location /lines { if ($http_x_key) { return 418; } if ($http_authorization) { return 418; } }");
    let gate = Nginx::start(directory.path(), &format!("location / {{ return 307 {}; }}", other.url("lines")));
    let database = shared().database();
    let mut client = database.connect();
    let options = r#"{"headers": {"X-Key": "k 1", "authorization": "Bearer t"}}"#;
    let load = |url: String, options: &str| format!("bulk.load('{url}', 'Patient', options => '{options}')");
    assert_eq!(failure(&mut client, &format!("select {}", load(nginx.url("lines"), "{}"))).code, "08004");
    for url in [nginx.url("lines"), nginx.url("inside"), gate.url("lines")] {
        assert_eq!(value(&mut client, &load(url, options)), r#"{"total": 1}"#);
    }
    assert_eq!(failure(&mut client, &format!("select {}", load(other.url("lines"), options))).code, "08006");
}

fn retries() {
    let database = shared().database();
    let mut client = database.connect();
    let good = b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{\"id\":\"1\"}\n".to_vec();
    let status = |head: &str| format!("HTTP/1.1 {head}\r\nContent-Length: 0\r\n\r\n").into_bytes();
    let failing = [
        status("503 Busy"),
        status("429 Slow\r\nRetry-After: 1"),
        Vec::new(),
        status("500 Oops\r\nRetry-After: Thu, 01 Jan 1970 00:00:00 GMT"),
    ];
    for (retries, requests) in [(4, 5), (10, 5)] {
        let server = Faulty::in_turn([&failing[..], &[good.clone()]].concat(), Then::Close);
        let began = Instant::now();
        let load = format!("bulk.load('{}', 'Patient', options => '{{\"retries\": {retries}}}')", server.url());
        assert_eq!(value(&mut client, &load), r#"{"total": 1}"#);
        assert_eq!(server.requests.load(Ordering::Relaxed), requests);
        assert!(began.elapsed() >= Duration::from_secs(1), "the server asked for a second");
    }
    for (answer, retries, requests, code) in [
        (status("503 Busy"), 0, 1, "08006"),
        (status("503 Busy"), 2, 3, "08006"),
        (status("404 No"), 5, 1, "58P01"),
        (status("403 No"), 5, 1, "08004"),
        (status("418 No"), 5, 1, "08006"),
    ] {
        let server = Faulty::start(answer, Then::Close);
        let error =
            failure(&mut client, &format!("select bulk.load('{}', 'Patient', options => '{{\"retries\": {retries}}}')", server.url()));
        assert_eq!((error.code.as_str(), server.requests.load(Ordering::Relaxed)), (code, requests), "{error:?}");
    }
    // A body that breaks is not asked for twice: its rows would be.
    let server = Faulty::start(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{\"id\":\"1\"}\n".to_vec(), Then::Close);
    let error = failure(&mut client, &format!("select bulk.load('{}', 'Patient', options => '{{\"retries\": 3}}')", server.url()));
    assert_eq!((error.code.as_str(), server.requests.load(Ordering::Relaxed)), ("22P04", 1));
    // A cancel does not wait for the pause.
    let server = Faulty::start(status("503 Busy\r\nRetry-After: 50"), Then::Close);
    let began = Instant::now();
    client.batch_execute("set statement_timeout = '300ms'").unwrap();
    let error = failure(&mut client, &format!("select bulk.load('{}', 'Patient', options => '{{\"retries\": 3}}')", server.url()));
    assert_eq!(error.code, "57014");
    assert!(began.elapsed() < Duration::from_secs(5));
}

fn timeouts() {
    let database = shared().database();
    let mut client = database.connect();
    let began = Instant::now();
    for answer in ["", "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{\"id\":\"1\"}\n"] {
        let server = Faulty::start(answer.as_bytes().to_vec(), Then::Hang);
        let error =
            failure(&mut client, &format!("select bulk.load('{}', 'Patient', options => '{{\"read-timeout\": 200}}')", server.url()));
        assert_eq!((error.code.as_str(), error.message.as_str()), ("08006", "timed out"), "{error:?}");
    }
    // Its queue is full: whoever comes next waits for ever.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let address = listener.local_addr().unwrap();
    let _waiting: Vec<_> = (0..4).map(|_| TcpStream::connect_timeout(&address, Duration::from_millis(100))).collect();
    let error =
        failure(&mut client, &format!("select bulk.load('http://{address}/x', 'Patient', options => '{{\"connect-timeout\": 300}}')"));
    assert_eq!(error.code, "08006", "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(8));
    // A slow server is none that keeps silent.
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 311\r\n\r\n";
    let body = format!("{{\"id\":\"1\",\"x\":\"{}\"}}\n", "x".repeat(311 - 18));
    let server = Faulty::start([head, &body].concat().into_bytes(), Then::Trickle(head.len()));
    let load = format!("bulk.load('{}', 'Patient', options => '{{\"read-timeout\": 300, \"connect-timeout\": 1000}}')", server.url());
    assert_eq!(value(&mut client, &load), r#"{"total": 1}"#);
}
