//! Sources on web servers: a real one and one that misbehaves.

use crate::support::cluster::{server_directory, shared};
use crate::support::proxy::Tunnel;
use crate::support::servers::free_port;
use crate::support::source::{Faulty, Nginx, Then, gzip, tls};
use crate::support::statement::{failure, value};
use crate::support::trial::test;
use std::fs;

test!("a web server's statuses are errors of their own", statuses);
fn statuses() {
    let directory = server_directory();
    fs::write(directory.path().join("lines"), gzip(b"{\"id\":\"1\"}\n")).unwrap();
    let nginx = Nginx::start(
        directory.path(),
        "location /forbidden { return 403; } location /teapot { return 418; } location /broken { return 500; } location /empty { return 204; } location /login { return 401; }",
    );
    let database = shared().database();
    let mut client = database.connect();
    assert_eq!(value(&mut client, &format!("bulk.load('{}', 'Patient')", nginx.url("lines?x=1"))), r#"{"total": 1}"#);
    for (path, code) in
        [("missing", "58P01"), ("forbidden", "08004"), ("login", "08004"), ("teapot", "08006"), ("broken", "08006"), ("empty", "08006")]
    {
        let error = failure(&mut client, &format!("select bulk.load('{}', 'Patient')", nginx.url(path)));
        assert_eq!(error.code, code, "{path}: {error:?}");
        assert!(error.detail.contains(path), "{error:?}");
    }
    let gone = nginx.url("lines");
    drop(nginx);
    assert_eq!(failure(&mut client, &format!("select bulk.load('{gone}', 'Patient')")).code, "08001");
    let error = failure(&mut client, "select bulk.load('http://no-such-host.invalid/x', 'Patient')");
    assert_eq!(error.code, "08001", "{error:?}");
}

test!("redirects are followed to allowed addresses only", redirects);
fn redirects() {
    let directory = server_directory();
    fs::write(directory.path().join("lines"), "{\"id\":\"1\"}\n").unwrap();
    let target = Nginx::start(directory.path(), "");
    let nginx = Nginx::start(
        directory.path(),
        &format!(
            "location /here {{ return 302 /lines; }} location /there {{ return 307 {}; }} location /loop {{ return 302 /loop; }}
             location /inside {{ return 302 http://127.0.0.2:{}/lines; }} location /file {{ return 302 file:///etc/passwd; }}",
            target.url("lines"),
            target.port()
        ),
    );
    let database = shared().database();
    let mut client = database.connect();
    for path in ["here", "there"] {
        assert_eq!(value(&mut client, &format!("bulk.load('{}', 'Patient')", nginx.url(path))), r#"{"total": 1}"#, "{path}");
    }
    assert_eq!(failure(&mut client, &format!("select bulk.load('{}', 'Patient')", nginx.url("inside"))).code, "42501");
    for path in ["loop", "file"] {
        let code = failure(&mut client, &format!("select bulk.load('{}', 'Patient')", nginx.url(path))).code;
        assert!(["08001", "22023", "08006"].contains(&code.as_str()), "{path}: {code}");
    }
    // Only the first address is allowed: the redirect is checked anew.
    client.batch_execute(&format!("set bulk.allowed_hosts = '127.0.0.1:{}'", nginx.port())).unwrap();
    assert_eq!(failure(&mut client, &format!("select bulk.load('{}', 'Patient')", nginx.url("there"))).code, "42501");
    assert_eq!(value(&mut client, &format!("bulk.load('{}', 'Patient')", nginx.url("here"))), r#"{"total": 1}"#);
}

test!("a body that ends early is an error, never a success", truncated);
fn truncated() {
    let database = shared().database();
    let mut client = database.connect();
    client.batch_execute("select bulk.create_resource_table('Patient')").unwrap();
    let line = b"{\"id\":\"1\"}\n".as_slice();
    let packed = gzip(line);
    let answer = |head: &str, body: &[u8]| [format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n").as_bytes(), body].concat();
    let cases = [
        (answer("Content-Length: 1000", line), false),
        (answer("Transfer-Encoding: chunked", b"b\r\n{\"id\":\"1\"}\n\r\n"), false),
        (answer("Transfer-Encoding: chunked", b"ff\r\n{\"id\":\"1\"}\n"), false),
        (answer("Connection: close", line), false),
        (answer("Connection: close", &packed[..packed.len() - 3]), false),
        (answer(&format!("Content-Length: {}", packed.len() + 5), &packed), false),
        // The trailer of a member says nothing of the next.
        (answer("Connection: close", &packed), false),
        (answer("Transfer-Encoding: chunked", b"b\r\n{\"id\":\"1\"}\n\r\n0\r\n\r\n"), true),
        (answer("Content-Length: 11\r\nContent-Type: text/html", line), true),
    ];
    for (index, (bytes, good)) in cases.into_iter().enumerate() {
        let server = Faulty::start(bytes, Then::Close);
        let load = format!("bulk.load('{}', 'Patient')", server.url());
        if good {
            assert_eq!(value(&mut client, &load), r#"{"total": 1}"#, "case {index}");
            client.batch_execute("truncate patient").unwrap();
        } else {
            let error = failure(&mut client, &format!("select {load}"));
            assert!(["22P04", "08006"].contains(&error.code.as_str()), "case {index}: {error:?}");
            assert_eq!(value(&mut client, "select count(*) from patient"), "0", "case {index}");
        }
    }
}

test!("nothing that is said of a source holds its query string", secrets);
fn secrets() {
    let database = shared().database();
    let mut client = database.connect();
    for answer in [
        "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nnonsense",
        "nonsense\r\n\r\n",
        "",
    ] {
        let server = Faulty::start(answer.as_bytes().to_vec(), Then::Close);
        let error = failure(&mut client, &format!("select bulk.load('{}', 'Patient')", server.url().replace("//", "//user:PASSWORD@")));
        let text = format!("{error:?}");
        assert!(!text.contains("SECRET") && !text.contains("PASSWORD"), "{text}");
        assert!(error.detail.contains("/lines"), "{text}");
    }
}

test!("a source whose first bytes come one by one is read as any other", trickle);
fn trickle() {
    let database = shared().database();
    let mut client = database.connect();
    for body in [gzip(b"{\"id\":\"1\"}\n"), b"\xEF\xBB\xBF{\"id\":\"1\"}\n".to_vec(), b"{\"id\":\"1\"}".to_vec()] {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        let server = Faulty::start([head.as_bytes(), &body].concat(), Then::Trickle(head.len()));
        assert_eq!(value(&mut client, &format!("bulk.load('{}', 'Patient')", server.url())), r#"{"total": 1}"#);
    }
}

test!("servers whose authority a superuser names are trusted, and no others", authorities);
fn authorities() {
    let database = shared().database();
    let mut client = database.connect();
    let directory = server_directory();
    let path = directory.path();
    fs::write(path.join("lines"), b"{\"id\": \"p\"}\n").unwrap();
    let port = free_port();
    let _nginx = Nginx::start(path, &tls(path, port));
    let load = format!("bulk.load('https://127.0.0.1:{port}/lines', 'Patient')");
    let error = failure(&mut client, &format!("select {load}"));
    assert_eq!(error.code, "08001", "{error:?}");
    for (file, code) in [("none", "22023"), ("lines", "22023")] {
        client.batch_execute(&format!("set bulk.ca_file = '{}'", path.join(file).display())).unwrap();
        assert_eq!(failure(&mut client, &format!("select {load}")).code, code, "{file}");
    }
    client.batch_execute(&format!("set bulk.ca_file = '{}'", path.join("ca.pem").display())).unwrap();
    assert_eq!(value(&mut client, &load), r#"{"total": 1}"#);
    let name = &database.name;
    client.batch_execute(&format!("create role plain_{name}; set role plain_{name}")).unwrap();
    assert_eq!(failure(&mut client, "set bulk.ca_file = ''").code, "42501");
    assert_eq!(failure(&mut client, "set bulk.proxy = ''").code, "42501");
    assert_eq!(failure(&mut client, "show bulk.proxy").code, "42501");
}

test!("servers are reached through the proxy that a superuser names", proxies);
fn proxies() {
    let database = shared().database();
    let mut client = database.connect();
    let directory = server_directory();
    fs::write(directory.path().join("lines"), b"{\"id\": \"p\"}\n").unwrap();
    let nginx = Nginx::start(directory.path(), "");
    let tunnel = Tunnel::start();
    // The proxy decides what can be reached, and it itself needs no leave.
    client.batch_execute(&format!("set bulk.allowed_hosts = ''; set bulk.proxy = '{}'", tunnel.url())).unwrap();
    assert_eq!(value(&mut client, &format!("bulk.load('{}', 'Patient')", nginx.url("lines"))), r#"{"total": 1}"#);
    let asked = tunnel.asked();
    assert!(asked.len() == 1 && asked[0].starts_with(&format!("CONNECT 127.0.0.1:{}", nginx.port())), "{asked:?}");
    assert!(asked[0].to_ascii_lowercase().contains("proxy-authorization: basic"), "{asked:?}");
    client.batch_execute("set bulk.proxy = 'nonsense://x'").unwrap();
    assert_eq!(failure(&mut client, &format!("select bulk.load('{}', 'Patient')", nginx.url("lines"))).code, "22023");
    client.batch_execute("set bulk.proxy = 'http://user:PASSWORD@127.0.0.1:1'").unwrap();
    let error = failure(&mut client, &format!("select bulk.load('{}', 'Patient')", nginx.url("lines")));
    assert!(error.code == "08001" && !format!("{error:?}").contains("PASSWORD"), "{error:?}");
}
