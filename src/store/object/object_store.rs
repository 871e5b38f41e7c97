//! What every store can do, and a store in memory that does it for tests.

use crate::error::SourceFault;
use crate::store::open_source::{Identity, Opened};
use std::fmt::Debug;
use std::time::Duration;
use url::Url;

/// An object as its store tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    pub key: String,
    /// In bytes.
    pub size: u64,
    pub etag: Option<String>,
    /// When it was written, as the store spells it: RFC 3339 of a listing, an HTTP date of a single object.
    pub modified: Option<String>,
}

impl Object {
    /// What tells its content from another.
    pub fn identity(self) -> Identity {
        Identity { length: Some(self.size), etag: self.etag, modified: self.modified }
    }
}

/// A bucket, container or directory.
pub trait Store: Debug + Send + Sync {
    /// Calls `each` with the objects whose keys begin with a prefix, in the order of their keys. An error of `each` ends it.
    fn list(&self, prefix: &str, each: &mut dyn FnMut(Object) -> Result<(), SourceFault>) -> Result<(), SourceFault>;

    /// What is known of an object.
    fn head(&self, key: &str) -> Result<Object, SourceFault>;

    /// An object's bytes, from one on.
    fn open(&self, key: &str, from: u64) -> Result<Opened, SourceFault>;

    /// Begins to write an object: it is there, whole, once the upload is finished.
    fn put<'a>(&'a self, key: &str) -> Result<Box<dyn Upload + 'a>, SourceFault>;

    /// Deletes an object; one that is not there is none to complain of.
    fn delete(&self, key: &str) -> Result<(), SourceFault>;

    /// Takes back what processes that are gone left unfinished below a prefix, as far as the store shows it.
    fn sweep(&self, _prefix: &str) -> Result<(), SourceFault> {
        Ok(())
    }

    /// A signed URL by which anyone reads the object for some time.
    fn signed_url(&self, key: &str, expires: Duration) -> Result<Url, SourceFault>;
}

/// An object that is being written. Dropped, it leaves nothing that a reader finds.
pub trait Upload: Send {
    fn write(&mut self, bytes: &[u8]) -> Result<(), SourceFault>;

    fn finish(self: Box<Self>) -> Result<(), SourceFault>;

    /// Takes back what was sent.
    fn abort(self: Box<Self>) -> Result<(), SourceFault>;
}

#[cfg(test)]
pub mod memory {
    //! The twin in memory: the behaviour without the network.

    use super::*;
    use std::collections::BTreeMap;
    use std::io::Cursor;
    use std::sync::Mutex;

    #[derive(Debug, Default)]
    pub struct Memory(Mutex<BTreeMap<String, Vec<u8>>>);

    struct Writing<'a> {
        store: &'a Memory,
        key: String,
        bytes: Vec<u8>,
    }

    fn object(key: &str, bytes: &[u8]) -> Object {
        Object { key: key.to_owned(), size: bytes.len() as u64, etag: Some(format!("{:08x}", crc32fast::hash(bytes))), modified: None }
    }

    fn missing() -> SourceFault {
        SourceFault::Refused { status: 404, code: "NoSuchKey".to_owned() }
    }

    impl Store for Memory {
        fn list(&self, prefix: &str, each: &mut dyn FnMut(Object) -> Result<(), SourceFault>) -> Result<(), SourceFault> {
            let found: Vec<Object> =
                self.0.lock().unwrap().iter().filter(|(key, _)| key.starts_with(prefix)).map(|(key, bytes)| object(key, bytes)).collect();
            found.into_iter().try_for_each(each)
        }

        fn head(&self, key: &str) -> Result<Object, SourceFault> {
            self.0.lock().unwrap().get(key).map(|bytes| object(key, bytes)).ok_or_else(missing)
        }

        fn open(&self, key: &str, from: u64) -> Result<Opened, SourceFault> {
            let bytes = self.0.lock().unwrap().get(key).cloned().ok_or_else(missing)?;
            let object = object(key, &bytes);
            if from > 0 && from >= object.size {
                return Err(SourceFault::Changed);
            }
            let identity = Identity { length: Some(object.size), etag: object.etag, modified: None };
            Ok(Opened { reader: Box::new(Cursor::new(bytes[from as usize..].to_vec())), delimited: true, ranged: true, identity })
        }

        fn put<'a>(&'a self, key: &str) -> Result<Box<dyn Upload + 'a>, SourceFault> {
            Ok(Box::new(Writing { store: self, key: key.to_owned(), bytes: Vec::new() }))
        }

        fn delete(&self, key: &str) -> Result<(), SourceFault> {
            self.0.lock().unwrap().remove(key);
            Ok(())
        }

        fn signed_url(&self, _: &str, _: Duration) -> Result<Url, SourceFault> {
            Err(SourceFault::Unsupported)
        }
    }

    impl Upload for Writing<'_> {
        fn write(&mut self, bytes: &[u8]) -> Result<(), SourceFault> {
            self.bytes.extend_from_slice(bytes);
            Ok(())
        }

        fn finish(self: Box<Self>) -> Result<(), SourceFault> {
            self.store.0.lock().unwrap().insert(self.key, self.bytes);
            Ok(())
        }

        fn abort(self: Box<Self>) -> Result<(), SourceFault> {
            Ok(())
        }
    }
}
