//! Stores that the tests start, from the registries alone (`scripts/provision.sh stores`). Shared by the tests of the library.

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// An S3 server that verifies signatures: of the key `KEY`, whose secret is `SECRET`. It ends when this is dropped.
pub struct S3Server {
    process: Child,
    pub port: u16,
    directory: TempDir,
}

impl S3Server {
    /// One with empty buckets. None outside `make test`, which says where the program is.
    pub fn start(buckets: &[&str]) -> Option<S3Server> {
        let program = PathBuf::from(std::env::var_os("BULK_CACHE")?).join("s3s-fs/bin/s3s-fs");
        let directory = tempfile::tempdir().unwrap();
        buckets.iter().for_each(|bucket| std::fs::create_dir(directory.path().join(bucket)).unwrap());
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(program);
        command.args(["--host", "127.0.0.1", "--port", &port.to_string(), "--access-key", "KEY", "--secret-key", "SECRET"]);
        let process = command.arg(directory.path()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("s3s-fs is there");
        let server = S3Server { process, port, directory };
        for _ in 0..1000 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(server);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the S3 server does not answer");
    }

    /// As an account has it.
    pub fn host(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Where a bucket's objects lie as files.
    pub fn bucket(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
