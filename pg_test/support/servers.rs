//! Servers that the tests start: stores, from the registries alone (`scripts/provision.sh stores`). Shared by the tests of the library.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// Where the programs are. None outside `make test`, which says it.
fn cache() -> Option<PathBuf> {
    std::env::var_os("BULK_CACHE").map(PathBuf::from)
}

/// A process that serves a port of the loopback. It ends when this is dropped.
pub struct Server {
    pub process: Child,
    pub port: u16,
}

impl Server {
    pub fn start(command: impl Fn(u16) -> Command) -> Server {
        for _ in 0..5 {
            let port = free_port();
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                continue;
            }
            let mut command = command(port);
            let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the server's program is there");
            let mut server = Server { process, port };
            for _ in 0..3000 {
                let answers = TcpStream::connect(("127.0.0.1", port)).is_ok();
                // It ends where another has taken the port.
                if server.process.try_wait().unwrap().is_some() {
                    break;
                }
                if answers {
                    return server;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        panic!("{:?} does not answer", command(0));
    }
}

/// A free port of the loopback.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The head of a request, to its end: closing a connection on which bytes lie unread takes the answer with it.
pub fn read_head(connection: &mut TcpStream) -> String {
    let (mut head, mut some) = (Vec::new(), [0; 4096]);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < 64 * 1024 {
        match connection.read(&mut some) {
            Ok(count) if count > 0 => head.extend_from_slice(&some[..count]),
            _ => break,
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An S3 server that verifies signatures: of the key `KEY`, whose secret is `SECRET`.
pub struct S3Server {
    pub server: Server,
    directory: TempDir,
}

impl S3Server {
    /// One with empty buckets.
    pub fn start(buckets: &[&str]) -> Option<S3Server> {
        let program = cache()?.join("s3s-fs/bin/s3s-fs");
        let directory = tempfile::tempdir().unwrap();
        buckets.iter().for_each(|bucket| std::fs::create_dir(directory.path().join(bucket)).unwrap());
        let server = Server::start(|port| {
            let mut command = Command::new(&program);
            command.args(["--host", "127.0.0.1", "--port", &port.to_string(), "--access-key", "KEY", "--secret-key", "SECRET"]);
            command.arg(directory.path());
            command
        });
        Some(S3Server { server, directory })
    }

    /// As an account has it.
    pub fn host(&self) -> String {
        format!("http://127.0.0.1:{}", self.server.port)
    }

    /// Where a bucket's objects lie as files.
    pub fn bucket(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

/// Microsoft's emulator of Azure Blob Storage, which verifies signatures: of the storage account `devstoreaccount1` and its key.
pub struct AzureServer {
    server: Server,
    _directory: TempDir,
}

/// The key that every emulator has.
pub const AZURE_KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Makes a container, as object_store does not.
const CONTAINER: &str = "const [port, name, key] = process.argv.slice(1), date = new Date().toUTCString(); \
    const text = `PUT\\n\\n\\n\\n\\n\\n\\n\\n\\n\\n\\n\\nx-ms-date:${date}\\nx-ms-version:2021-12-02\\n/devstoreaccount1/devstoreaccount1/${name}\\nrestype:container`; \
    const signature = require('crypto').createHmac('sha256', Buffer.from(key, 'base64')).update(text).digest('base64'); \
    fetch(`http://127.0.0.1:${port}/devstoreaccount1/${name}?restype=container`, {method: 'PUT', headers: {'x-ms-date': date, 'x-ms-version': '2021-12-02', \
        authorization: `SharedKey devstoreaccount1:${signature}`}}).then(answer => process.exit(answer.status === 201 ? 0 : 1))";

impl AzureServer {
    /// One with empty containers.
    pub fn start(containers: &[&str]) -> Option<AzureServer> {
        let program = cache()?.join("azurite/node_modules/azurite/dist/src/blob/main.js");
        let directory = tempfile::tempdir().unwrap();
        let server = Server::start(|port| {
            let mut command = Command::new("node");
            command.arg(&program).args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string(), "--location"]).arg(directory.path());
            command.args(["--skipApiVersionCheck", "--disableTelemetry", "--silent"]);
            command
        });
        for name in containers {
            let made = Command::new("node").args(["-e", CONTAINER, &server.port.to_string(), name, AZURE_KEY]).status();
            assert!(made.unwrap().success(), "container {name}");
        }
        Some(AzureServer { server, _directory: directory })
    }

    pub fn host(&self) -> String {
        format!("http://127.0.0.1:{}/devstoreaccount1", self.server.port)
    }
}

/// An emulator of Google Cloud Storage, which lets everybody in.
pub struct GcsServer(Server);

impl GcsServer {
    /// One with an empty bucket `bucket`.
    pub fn start() -> Option<GcsServer> {
        let packages = cache()?.join("gcs");
        Some(GcsServer(Server::start(|port| {
            let mut command = Command::new("python3");
            command.env("PYTHONPATH", &packages).args(["-m", "gcp_storage_emulator", "start", "--host", "127.0.0.1"]);
            command.args(["--port", &port.to_string(), "--in-memory", "--default-bucket", "bucket"]);
            command
        })))
    }

    pub fn host(&self) -> String {
        format!("http://127.0.0.1:{}", self.0.port)
    }
}
