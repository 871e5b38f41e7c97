//! What every store can do, and a store in memory that does it for tests.

use crate::error::SourceFault;
use crate::store::open_source::{Identity, Opened};
use std::collections::HashSet;
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
        Identity { length: Some(self.size), etag: self.etag, modified: self.modified, inode_changed: None }
    }
}

/// Bytes of a page of a listing: a thousand keys of 1 kB, and what is told of each.
pub const MAX_PAGE_BYTES: u64 = 16 << 20;
/// Bytes of what says how a listing goes on. With pages of a thousand keys that is a billion.
const MAX_TOKEN_BYTES: usize = 64 << 20;

/// The marks by which a listing says how it goes on: each once, and not without end.
#[derive(Debug, Default)]
pub struct PageTokens {
    seen: HashSet<String>,
    bytes: usize,
}

impl PageTokens {
    /// The mark of the next page.
    ///
    /// # Errors
    /// `EndlessListing` where it came before, or where there were too many.
    pub fn follow(&mut self, token: String) -> Result<String, SourceFault> {
        self.bytes += token.len() + size_of::<String>();
        let goes_on = self.bytes <= MAX_TOKEN_BYTES && self.seen.insert(token.clone());
        if goes_on { Ok(token) } else { Err(SourceFault::EndlessListing) }
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
mod tests {
    use super::*;

    #[test]
    fn a_listing_ends() {
        let mut tokens = PageTokens::default();
        assert_eq!(tokens.follow("a".to_owned()), Ok("a".to_owned()));
        assert_eq!(tokens.follow("b".to_owned()), Ok("b".to_owned()));
        assert_eq!(tokens.follow("a".to_owned()), Err(SourceFault::EndlessListing));
        let mut tokens = PageTokens::default();
        let followed = (0..MAX_TOKEN_BYTES).take_while(|page| tokens.follow(format!("{page:09990}")).is_ok()).count();
        assert!((1000..10_000).contains(&followed), "{followed}");
    }
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
            let identity = Identity { length: Some(object.size), etag: object.etag, ..Identity::default() };
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
