//! What every store must do, and the servers that it is tried with.

use super::Interrupt;
use super::account::AwsAccount;
use super::address::Allowed;
use super::directory::Directory;
use super::opened::Access;
use super::s3::S3;
use super::stores::memory::Memory;
use super::stores::{Object, Store};
use crate::error::SourceFault;
use servers::S3Server;
use std::time::Duration;

#[path = "../../pg_test/servers.rs"]
mod servers;

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
    assert!(object.etag.is_some() && opened.identity.etag == object.etag);
    assert!(matches!(store.open(odd, 10), Err(SourceFault::Changed)));
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

fn access() -> Access {
    Access { allowed_hosts: Allowed::parse("127.0.0.1"), ..Access::default() }
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
    behaves(&Directory::new(directory.path()));
    pages(&Directory::new(directory.path()), 1500);
    let store = Directory::new(directory.path());
    for key in ["", "..", "../x", "/x", "a/../../x"] {
        assert!(matches!(store.open(key, 0), Err(SourceFault::Unsupported)), "{key}");
    }
    std::os::unix::fs::symlink("/", directory.path().join("root")).unwrap();
    assert_eq!(keys(&store, "").len(), 1500);
    assert!(Directory::new(&directory.path().join("none")).list("", &mut |_| Ok(())).is_err());
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
        super::http::open(url, &access(), &Interrupt::new(), 0).map(|mut opened| opened.reader.read_to_end(&mut bytes).map(|_| bytes))
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
    let closed = S3::new("bucket", &account(&server, "KEY", "SECRET"), &Access::default(), &Interrupt::new()).unwrap();
    assert!(matches!(closed.head("signed"), Err(SourceFault::AddressRefused(_))));
}
