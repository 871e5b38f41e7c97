//! What every store must do, and the servers that it is tried with.

use crate::error::SourceFault;
use crate::store::account::{AwsAccount, AzureContainer, GcpAccount};
use crate::store::interrupt::Interrupt;
use crate::store::net::client_config::ClientConfig;
use crate::store::net::ip_policy::Allowed;
use crate::store::object::azure::Azure;
use crate::store::object::directory::Directory;
use crate::store::object::gcs::Gcs;
use crate::store::object::object_store::memory::Memory;
use crate::store::object::object_store::{Object, Store};
use crate::store::object::s3::S3;
use servers::{AZURE_KEY, AzureServer, GcsServer, S3Server};
use sha2::{Digest, Sha256};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

#[path = "../../../pg_test/support/servers.rs"]
pub mod servers;

fn put(store: &dyn Store, key: &str, bytes: &[u8]) {
    let mut upload = store.put(key).unwrap();
    // In pieces of odd sizes.
    bytes.chunks(100_001).for_each(|piece| upload.write(piece).unwrap());
    upload.finish().unwrap();
}

fn get(store: &dyn Store, key: &str, from: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    store.open(key, from).unwrap().reader.read_to_end(&mut bytes).unwrap();
    bytes
}

fn keys(store: &dyn Store, prefix: &str) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    store
        .list(prefix, &mut |Object { key, size, .. }| {
            found.push((key, size));
            Ok(())
        })
        .unwrap();
    found
}

fn status<T>(result: Result<T, SourceFault>) -> (u16, String) {
    match result.err() {
        Some(SourceFault::Refused { status, code }) => (status, code),
        Some(SourceFault::NoSuchFile) => (404, "NoSuchKey".to_owned()),
        other => panic!("{other:?}"),
    }
}

/// Objects are written whole or not at all, found by their prefixes, read from any byte, deleted.
fn behaves(store: &dyn Store) {
    let odd = "dir/a b+ä%?&=#~.ndjson.gz";
    put(store, odd, b"0123456789");
    put(store, "dir/empty", b"");
    put(store, "dirty", b"x");
    assert_eq!(get(store, odd, 0), b"0123456789");
    assert_eq!(get(store, odd, 7), b"789");
    assert_eq!(get(store, "dir/empty", 0), b"");
    assert_eq!(keys(store, "dir/"), [(odd.to_owned(), 10), ("dir/empty".to_owned(), 0)]);
    assert_eq!(keys(store, "").len(), 3);
    assert_eq!(keys(store, "nothing"), []);
    let object = store.head(odd).unwrap();
    assert!(store.open(odd, 0).unwrap().ranged);
    let opened = store.open(odd, 3).unwrap();
    assert_eq!((object.size, opened.identity.length, opened.delimited, opened.ranged), (10, Some(10), true, true));
    // Not every emulator tells it with the bytes.
    assert!(object.etag.is_some() && opened.identity.etag.is_none_or(|etag| Some(etag) == object.etag));
    let behind = store.open(odd, 10).map(drop);
    assert_eq!(behind, Err(SourceFault::Changed));
    assert_eq!(status(store.open("none", 0).map(drop)), (404, "NoSuchKey".to_owned()));
    assert_eq!(status(store.head("none")).0, 404);
    // Over what is there.
    put(store, odd, b"new");
    assert_eq!(get(store, odd, 0), b"new");
    // More than a part, and nothing of one that is given up.
    let large: Vec<u8> = (0..20_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    put(store, "large", &large);
    assert!(get(store, "large", 0) == large);
    assert!(get(store, "large", 19_999_000) == large[19_999_000..]);
    let mut upload = store.put("given up").unwrap();
    upload.write(&large).unwrap();
    upload.abort().unwrap();
    let mut upload = store.put("dropped").unwrap();
    upload.write(b"x").unwrap();
    drop(upload);
    assert_eq!(keys(store, "").iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), [odd, "dir/empty", "dirty", "large"]);
    // A listing ends where it is told to.
    let mut seen = 0;
    let ended = store.list("", &mut |_| {
        seen += 1;
        Err(SourceFault::Timeout)
    });
    assert_eq!((ended, seen), (Err(SourceFault::Timeout), 1));
    for key in [odd, "dir/empty", "dirty", "large", "large"] {
        store.delete(key).unwrap();
    }
    assert_eq!(keys(store, ""), []);
}

/// More objects than a page of a listing holds.
fn pages(store: &dyn Store, count: usize) {
    for number in 0..count {
        put(store, &format!("page/{number:05}"), b"x");
    }
    let found = keys(store, "page/");
    assert_eq!(found.len(), count);
    assert!(found.windows(2).all(|pair| pair[0].0 < pair[1].0));
}

fn account(server: &S3Server, id: &str, secret: &str) -> AwsAccount {
    AwsAccount {
        region: "us-east-1".to_owned(),
        access_key_id: id.to_owned(),
        secret_access_key: secret.to_owned(),
        session_token: None,
        host: Some(server.host()),
        path_style: None,
        use_ssl: None,
    }
}

fn access() -> ClientConfig {
    ClientConfig { allowed_hosts: Allowed::parse("127.0.0.1"), ..ClientConfig::default() }
}

fn store(server: &S3Server, bucket: &str, id: &str, secret: &str) -> S3 {
    S3::new(bucket, &account(server, id, secret), &access(), &Interrupt::new()).unwrap()
}

#[test]
fn memory_behaves() {
    behaves(&Memory::default());
    pages(&Memory::default(), 1500);
}

#[test]
fn directory_behaves() {
    let directory = tempfile::tempdir().unwrap();
    behaves(&Directory::new(directory.path(), &Interrupt::new()));
    pages(&Directory::new(directory.path(), &Interrupt::new()), 1500);
    let store = Directory::new(directory.path(), &Interrupt::new());
    for key in ["", "..", "../x", "/x", "a/../../x"] {
        assert!(matches!(store.open(key, 0), Err(SourceFault::Unsupported)), "{key}");
    }
    std::os::unix::fs::symlink("/", directory.path().join("root")).unwrap();
    assert_eq!(keys(&store, "").len(), 1500);
    assert!(Directory::new(&directory.path().join("none"), &Interrupt::new()).list("", &mut |_| Ok(())).is_err());
}

/// The same with a server that runs already, `BULK_TEST_S3=http://host:port`: an empty bucket `bucket`, the key `KEY`, the secret `SECRET`.
#[test]
fn another_s3_behaves() {
    let Ok(host) = std::env::var("BULK_TEST_S3") else { return };
    let at = |bucket: &str, secret: &str| {
        let account = AwsAccount {
            region: "us-east-1".to_owned(),
            access_key_id: "KEY".to_owned(),
            secret_access_key: secret.to_owned(),
            session_token: None,
            host: Some(host.clone()),
            path_style: None,
            use_ssl: None,
        };
        S3::new(bucket, &account, &access(), &Interrupt::new()).unwrap()
    };
    let bucket = at("bucket", "SECRET");
    behaves(&bucket);
    pages(&bucket, 1500);
    put(&bucket, "signed", b"for you");
    let url = bucket.signed_url("signed", Duration::from_secs(60)).unwrap();
    assert_eq!(fetch(&url).unwrap(), b"for you");
    assert_eq!(status(at("bucket", "WRONG").list("", &mut |_| Ok(()))), (403, "SignatureDoesNotMatch".to_owned()));
    assert_eq!(status(at("nowhere", "SECRET").list("", &mut |_| Ok(()))), (404, "NoSuchBucket".to_owned()));
}

/// What whoever has a URL reads.
fn fetch(url: &url::Url) -> Result<Vec<u8>, SourceFault> {
    let mut bytes = Vec::new();
    crate::store::net::http::open(url, &access(), &Interrupt::new(), 0)?.reader.read_to_end(&mut bytes).unwrap();
    Ok(bytes)
}

#[test]
fn azure_behaves() {
    let Some(server) = AzureServer::start(&["container"]) else { return };
    let store = |container: &str, key: &str, access: &ClientConfig| {
        let container = AzureContainer {
            storage: "devstoreaccount1".to_owned(),
            container: container.to_owned(),
            key: key.to_owned(),
            host: Some(server.host()),
        };
        Azure::new(&container, access, &Interrupt::new())
    };
    let container = store("container", AZURE_KEY, &access()).unwrap();
    behaves(&container);
    pages(&container, 1100);
    put(&container, "signed", b"for you");
    let url = container.signed_url("signed", Duration::from_secs(60)).unwrap();
    assert_eq!(fetch(&url).unwrap(), b"for you");
    let mut other = url.clone();
    other.set_path("/devstoreaccount1/container/page/00001");
    assert!(matches!(fetch(&other), Err(SourceFault::Denied(403))));
    let wrong = store("container", "d3Jvbmc=", &access()).unwrap();
    assert_eq!(status(wrong.head("signed")).0, 403);
    assert_eq!(status(wrong.open("signed", 0).map(drop)).0, 403);
    assert_eq!(status(wrong.list("", &mut |_| Ok(()))), (403, "AuthorizationFailure".to_owned()));
    assert_eq!(status(store("nowhere", AZURE_KEY, &access()).unwrap().list("", &mut |_| Ok(()))), (404, "ContainerNotFound".to_owned()));
    assert!(store("container", "no base64 !", &access()).is_err());
    let closed = store("container", AZURE_KEY, &ClientConfig::default()).unwrap();
    assert!(matches!(closed.head("signed"), Err(SourceFault::AddressRefused(_))));
}

#[test]
fn gcs_behaves() {
    let Some(server) = GcsServer::start() else { return };
    let store = |bucket: &str, access: &ClientConfig| {
        let account = GcpAccount {
            service_account_email: "bulk@project.iam.gserviceaccount.com".to_owned(),
            private_key: private_key(),
            private_key_id: String::new(),
            host: Some(server.host()),
        };
        Gcs::new(bucket, &account, access, &Interrupt::new()).unwrap()
    };
    let bucket = store("bucket", &access());
    behaves(&bucket);
    pages(&bucket, 300);
    assert_eq!(status(store("nowhere", &access()).list("", &mut |_| Ok(()))).0, 404);
    assert!(matches!(store("bucket", &ClientConfig::default()).head("x"), Err(SourceFault::AddressRefused(_))));
}

/// The emulator lets everybody in, so what is signed is verified here, by OpenSSL.
#[test]
fn gcs_signs() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = format!("http://{}", listener.local_addr().unwrap());
    let key = private_key();
    let account = GcpAccount {
        service_account_email: "bulk@project.iam.gserviceaccount.com".to_owned(),
        private_key: key.clone(),
        private_key_id: "one".to_owned(),
        host: Some(host.clone()),
    };
    let bucket = Gcs::new("bucket", &account, &access(), &Interrupt::new()).unwrap();
    let asked = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let head = servers::read_head(&mut client);
        client.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
        head
    });
    assert_eq!(status(bucket.head("a b")), (401, "AccessDenied".to_owned()));
    let asked = asked.join().unwrap();
    assert!(asked.starts_with("GET /storage/v1/b/bucket/o/a%20b "), "{asked}");
    let token = asked.lines().find_map(|line| line.strip_prefix("authorization: Bearer ")).unwrap();
    let (text, signature) = token.rsplit_once('.').unwrap();
    assert!(verifies(&key, text.as_bytes(), &decoded(signature)));
    assert!(!verifies(&private_key(), text.as_bytes(), &decoded(signature)));
    let (head, claims) = text.split_once('.').unwrap();
    let read = |part: &str| serde_json::from_slice::<serde_json::Value>(&decoded(part)).unwrap();
    assert_eq!((read(head)["alg"].as_str(), read(head)["kid"].as_str()), (Some("RS256"), Some("one")));
    assert_eq!(read(claims)["iss"], "bulk@project.iam.gserviceaccount.com");
    // A signed URL, by the rules of Google's V4 signatures.
    let url = bucket.signed_url("dir/key.ndjson", Duration::from_secs(60)).unwrap();
    let (query, signature) = url.query().unwrap().split_once("&X-Goog-Signature=").unwrap();
    let value = |name: &str| url.query_pairs().find(|(key, _)| key == name).unwrap().1.into_owned();
    let date = value("X-Goog-Date");
    // object_store signs for Google's own host, wherever it asks.
    let canonical = format!("GET\n/bucket/dir/key.ndjson\n{query}\nhost:storage.googleapis.com\n\nhost\nUNSIGNED-PAYLOAD");
    let scope = value("X-Goog-Credential").split_once('/').unwrap().1.to_owned();
    let hash: String = Sha256::digest(canonical.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    let text = format!("GOOG4-RSA-SHA256\n{date}\n{scope}\n{hash}");
    let bytes: Vec<u8> =
        signature.as_bytes().chunks(2).map(|hex| u8::from_str_radix(std::str::from_utf8(hex).unwrap(), 16).unwrap()).collect();
    assert!(verifies(&key, text.as_bytes(), &bytes), "{url}");
    // What is no key is told without it.
    let broken = GcpAccount { private_key: "SECRET".to_owned(), ..account };
    let error = Gcs::new("bucket", &broken, &access(), &Interrupt::new()).unwrap_err();
    assert_eq!(error, SourceFault::Refused { status: 401, code: "InvalidAccount".to_owned() });
    assert!(!format!("{broken:?}").contains("SECRET"));
}

/// Of base64 in the alphabet of URLs.
fn decoded(text: &str) -> Vec<u8> {
    let text = text.replace('-', "+").replace('_', "/");
    let padded = format!("{text}{}", "=".repeat((4 - text.len() % 4) % 4));
    openssl(&["base64", "-d", "-A"], padded.as_bytes()).unwrap()
}

/// Whether a signature by RSA and SHA-256 is of a private key.
fn verifies(key: &str, text: &[u8], signature: &[u8]) -> bool {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let public = file("public", &openssl(&["pkey", "-pubout"], key.as_bytes()).unwrap());
    openssl(&["dgst", "-sha256", "-verify", &public, "-signature", &file("signature", signature)], text).is_some()
}

/// What OpenSSL makes of an input; None where it fails.
fn openssl(arguments: &[&str], input: &[u8]) -> Option<Vec<u8>> {
    let mut command = std::process::Command::new("openssl");
    let piped = std::process::Stdio::piped;
    let mut child = command.args(arguments).stdin(piped()).stdout(piped()).stderr(piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    output.status.success().then_some(output.stdout)
}

/// A key of RSA, made by OpenSSL.
fn private_key() -> String {
    let made =
        std::process::Command::new("openssl").args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]).output().unwrap();
    String::from_utf8(made.stdout).unwrap()
}

#[test]
fn s3_behaves() {
    let Some(server) = S3Server::start(&["bucket"]) else { return };
    let bucket = store(&server, "bucket", "KEY", "SECRET");
    behaves(&bucket);
    pages(&bucket, 1500);
    // A signed URL opens the object for whoever has it, until it is changed.
    put(&bucket, "signed", b"for you");
    assert_eq!(std::fs::read(server.bucket("bucket").join("signed")).unwrap(), b"for you");
    let url = bucket.signed_url("signed", Duration::from_secs(60)).unwrap();
    let read = |url: &url::Url| {
        let mut bytes = Vec::new();
        crate::store::net::http::open(url, &access(), &Interrupt::new(), 0)
            .map(|mut opened| opened.reader.read_to_end(&mut bytes).map(|_| bytes))
    };
    assert_eq!(read(&url).unwrap().unwrap(), b"for you");
    let mut other = url.clone();
    other.set_path("/bucket/page/00001");
    assert!(matches!(read(&other), Err(SourceFault::Denied(403))));
    // Keys that are not theirs, a bucket that is not there, an address that may not be reached.
    assert_eq!(status(store(&server, "bucket", "KEY", "WRONG").head("signed")).0, 403);
    assert_eq!(status(store(&server, "bucket", "KEY", "WRONG").list("", &mut |_| Ok(()))), (403, "SignatureDoesNotMatch".to_owned()));
    assert_eq!(status(store(&server, "bucket", "NOBODY", "SECRET").list("", &mut |_| Ok(()))).0, 403);
    assert_eq!(status(store(&server, "nowhere", "KEY", "SECRET").list("", &mut |_| Ok(()))), (404, "NoSuchBucket".to_owned()));
    let closed = S3::new("bucket", &account(&server, "KEY", "SECRET"), &ClientConfig::default(), &Interrupt::new()).unwrap();
    assert!(matches!(closed.head("signed"), Err(SourceFault::AddressRefused(_))));
}
