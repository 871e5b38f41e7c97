//! Sources for tests: files of the server, gzip, nginx, and a server that misbehaves.

use crate::support::cluster::{cache, checked, server_directory};
use crate::support::servers::{Server, read_head};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

/// A directory with one file that the server can read.
pub struct File {
    directory: TempDir,
}

impl File {
    pub fn new(content: &[u8]) -> File {
        let directory = server_directory();
        let path = directory.path().join("lines");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        File { directory }
    }

    pub fn url(&self) -> String {
        format!("file://{}/lines", self.directory.path().display())
    }
}

/// One gzip member.
pub fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// nginx serving a directory.
pub struct Nginx {
    server: Server,
    _home: TempDir,
}

impl Nginx {
    /// Serves `root`; `locations` are added to the server's configuration.
    pub fn start(root: &Path, locations: &str) -> Nginx {
        Nginx::start_with(root, locations, "")
    }

    /// The same beside what else is to stand there, such as upstreams.
    pub fn start_with(root: &Path, locations: &str, beside: &str) -> Nginx {
        let home = server_directory();
        let directory = home.path().display();
        let file = home.path().join("nginx.conf");
        let server = Server::start(|port| {
            let configuration = format!(
                "daemon off; master_process off; pid {directory}/pid; error_log {directory}/error.log;\n\
                 events {{ worker_connections 64; }}\n\
                 http {{ access_log off; client_body_temp_path {directory}/a; proxy_temp_path {directory}/b; fastcgi_temp_path {directory}/c;\n\
                 uwsgi_temp_path {directory}/d; scgi_temp_path {directory}/e;\n\
                 {beside}\n\
                 server {{ listen 127.0.0.1:{port}; root {}; {locations} }} }}\n",
                root.display()
            );
            fs::write(&file, configuration).unwrap();
            let mut command = Command::new(cache().join("nginx/usr/sbin/nginx"));
            command.arg("-c").arg(&file).args(["-e", &format!("{directory}/error.log")]);
            command
        });
        Nginx { server, _home: home }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port())
    }

    pub fn port(&self) -> u16 {
        self.server.port
    }
}

/// An authority of its own, `ca.pem`, and what nginx needs to serve over TLS at a port of 127.0.0.1 in its name.
pub fn tls(directory: &Path, port: u16) -> String {
    let openssl = |arguments: &str| drop(checked(Command::new("openssl").args(arguments.split(' ')).current_dir(directory)));
    openssl("req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=authority");
    openssl("req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=server");
    fs::write(directory.join("names"), "subjectAltName = IP:127.0.0.1\n").unwrap();
    openssl("x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 2 -extfile names");
    fs::set_permissions(directory.join("ca.pem"), fs::Permissions::from_mode(0o644)).unwrap();
    format!("listen 127.0.0.1:{port} ssl; ssl_certificate {0}/server.pem; ssl_certificate_key {0}/server.key;", directory.display())
}

/// A server that makes its one answer as it sends it.
pub struct Stream {
    port: u16,
}

impl Stream {
    /// Sends what `next` gives until it gives nothing, to one client.
    pub fn start(mut next: impl FnMut() -> Option<Vec<u8>> + Send + 'static) -> Stream {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            let (mut connection, _) = listener.accept().unwrap();
            read_head(&mut connection);
            let _ = connection.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            while let Some(bytes) = next() {
                if write!(connection, "{:x}\r\n", bytes.len()).and_then(|()| connection.write_all(&bytes)).is_err() {
                    return;
                }
                let _ = connection.write_all(b"\r\n");
            }
            let _ = connection.write_all(b"0\r\n\r\n");
        });
        Stream { port }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/lines", self.port)
    }
}

/// A server that writes the given bytes for every request, then hangs or closes.
pub struct Faulty {
    port: u16,
    stop: Arc<AtomicBool>,
    /// Requests that came.
    pub requests: Arc<AtomicUsize>,
}

/// What comes after the bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Then {
    Close,
    Hang,
    /// Closes too; behind the first so many bytes the next come one by one.
    Trickle(usize),
}

impl Faulty {
    pub fn start(answer: Vec<u8>, then: Then) -> Faulty {
        Faulty::in_turn(vec![answer], then)
    }

    /// Answers one request after another with these; with the last for ever.
    pub fn in_turn(answers: Vec<Vec<u8>>, then: Then) -> Faulty {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stop, requests) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopping, counting) = (Arc::clone(&stop), Arc::clone(&requests));
        thread::spawn(move || {
            let mut hanging = Vec::new();
            for connection in listener.incoming().take(10_000) {
                if stopping.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(mut connection) = connection else { continue };
                read_head(&mut connection);
                let number = counting.fetch_add(1, Ordering::Relaxed);
                let answer = &answers[number.min(answers.len() - 1)];
                let whole = if let Then::Trickle(whole) = then { whole } else { answer.len() };
                let _ = connection.write_all(&answer[..whole]);
                for byte in &answer[whole..] {
                    let _ = connection.write_all(&[*byte]);
                    thread::sleep(std::time::Duration::from_millis(3));
                }
                let _ = connection.flush();
                if then == Then::Hang {
                    hanging.push(connection);
                }
            }
        });
        Faulty { port, stop, requests }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/lines?signature=SECRET", self.port)
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// How a `Slow` server sends.
#[derive(Clone, Copy)]
pub struct Manner {
    /// Bytes of a body after which it closes, or hangs.
    pub most: usize,
    pub hangs: bool,
    /// Between two pieces of 128 kB.
    pub pause: Duration,
    /// Whether it knows ranges.
    pub ranges: bool,
}

/// What is sent, its ETag and how it is sent.
type Object = Mutex<(Arc<Vec<u8>>, String, Manner)>;

/// A web server of one object, which it sends as it is told.
pub struct Slow {
    port: u16,
    stop: Arc<AtomicBool>,
    object: Arc<Object>,
    /// Where the answers began.
    pub begun: Arc<Mutex<Vec<u64>>>,
}

impl Slow {
    pub fn start(object: Vec<u8>, manner: Manner) -> Slow {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stop, begun) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let object = Arc::new(Mutex::new((Arc::new(object), "first".to_owned(), manner)));
        let (stopping, kept, telling) = (Arc::clone(&stop), Arc::clone(&object), Arc::clone(&begun));
        thread::spawn(move || {
            for connection in listener.incoming().take(10_000) {
                if stopping.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(connection) = connection else { continue };
                let (object, begun, stop) = (Arc::clone(&kept), Arc::clone(&telling), Arc::clone(&stopping));
                thread::spawn(move || answer(connection, &object, &begun, &stop));
            }
        });
        Slow { port, stop, object, begun }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/object.ndjson?signature=SECRET", self.port)
    }

    /// From the next answer on.
    pub fn behave(&self, manner: Manner) {
        self.object.lock().unwrap().2 = manner;
    }

    /// Puts another object in its place.
    pub fn replace(&self, content: Vec<u8>, etag: &str) {
        let mut object = self.object.lock().unwrap();
        object.0 = Arc::new(content);
        object.1 = etag.to_owned();
    }
}

fn answer(mut connection: TcpStream, object: &Object, begun: &Mutex<Vec<u64>>, stop: &AtomicBool) {
    let request = read_head(&mut connection).to_ascii_lowercase();
    let (content, etag, manner) = object.lock().unwrap().clone();
    let asked: Option<usize> =
        request.split("range: bytes=").nth(1).and_then(|rest| rest.split('-').next()).and_then(|start| start.parse().ok());
    let from = asked.filter(|_| manner.ranges).unwrap_or(0);
    begun.lock().unwrap().push(from as u64);
    let (rest, total) = (content.get(from..).unwrap_or_default(), content.len());
    let ranges = if manner.ranges { "Accept-Ranges: bytes\r\n" } else { "" };
    let head = match from {
        0 => format!("HTTP/1.1 200 OK\r\n{ranges}Content-Length: {total}\r\nETag: \"{etag}\"\r\nConnection: close\r\n\r\n"),
        _ if from >= total => "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned(),
        _ => format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {from}-{}/{total}\r\nETag: \"{etag}\"\r\nConnection: close\r\n\r\n",
            rest.len(),
            total - 1
        ),
    };
    if connection.write_all(head.as_bytes()).is_err() {
        return;
    }
    for piece in rest[..rest.len().min(manner.most)].chunks(128 * 1024) {
        if connection.write_all(piece).is_err() {
            return;
        }
        thread::sleep(manner.pause);
    }
    for _ in 0..600 {
        if !(manner.hangs && rest.len() > manner.most) || stop.load(Ordering::Relaxed) {
            break;
        }
        thread::sleep(Duration::from_millis(100));
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}
