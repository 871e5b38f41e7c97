//! How a web server is asked for a source: headers, retries, timeouts.

use crate::support::cluster::{server_directory, shared};
use crate::support::source::{Faulty, Nginx, Then, gzip};
use crate::support::statement::{failure, value};
use crate::support::trial::{SERVER, parts, test};
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

parts!(SERVER);

test!("headers go to the source, and never to where a redirect leads", headers);
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

test!("what passes is tried again as often as asked, when the server asks", retries);
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
        let server = Faulty::in_turn([&failing[..], std::slice::from_ref(&good)].concat(), Then::Close);
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
    // A cancel does not wait for the pause, which is longer than this bound.
    let server = Faulty::start(status("503 Busy\r\nRetry-After: 50"), Then::Close);
    let began = Instant::now();
    client.batch_execute("set statement_timeout = '300ms'").unwrap();
    let error = failure(&mut client, &format!("select bulk.load('{}', 'Patient', options => '{{\"retries\": 3}}')", server.url()));
    assert_eq!(error.code, "57014");
    assert!(began.elapsed() < Duration::from_secs(50));
}

test!("a server that keeps silent ends in an error after the timeouts", timeouts);
fn timeouts() {
    let database = shared().database();
    let mut client = database.connect();
    // Whoever hung would end in 57014.
    client.batch_execute("set statement_timeout = '30s'").unwrap();
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
    // A slow server is none that keeps silent.
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 311\r\n\r\n";
    let body = format!("{{\"id\":\"1\",\"x\":\"{}\"}}\n", "x".repeat(311 - 18));
    let server = Faulty::start([head, &body].concat().into_bytes(), Then::Trickle(head.len()));
    let load = format!("bulk.load('{}', 'Patient', options => '{{\"read-timeout\": 700, \"connect-timeout\": 1000}}')", server.url());
    assert_eq!(value(&mut client, &load), r#"{"total": 1}"#);
}
