//! A source by its URL: what it is called, what right it takes, and how it is opened.

use crate::error::{Error, SourceFault};
use crate::store::bucket::Bucket;
use crate::store::inflate::{self, Broken, Inflated, Restart};
use crate::store::interrupt::Interrupt;
use crate::store::net::client_config::ClientConfig;
use crate::store::net::http;
use crate::store::object::azure::Azure;
use crate::store::object::object_store::Store;
use crate::store::open_source::Identity;
use crate::store::redact::redact;
use crate::store::{file, file_pattern};
use std::io::{self, Read};
use std::path::PathBuf;
use url::Url;

/// Where NDJSON comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file of the database server.
    File(PathBuf),
    /// `http://` or `https://`.
    Http(Url),
    /// `s3://bucket/key`, `gs://bucket/key`, `az://container/key`.
    Object(Bucket, String),
}

impl Source {
    /// Reads a URL, or an absolute path of the server.
    ///
    /// # Errors
    /// `Source` for a URL or path that no source can be.
    pub fn parse(text: &str) -> Result<Source, Error> {
        let unsupported = || Error::source(&redact(text), SourceFault::Unsupported);
        if text.starts_with('/') {
            return Ok(Source::File(PathBuf::from(text)));
        }
        let url = Url::parse(text).map_err(|_| unsupported())?;
        match url.scheme() {
            "file" if text.to_ascii_lowercase().starts_with("file://") => url.to_file_path().map(Source::File).map_err(|()| unsupported()),
            "http" | "https" if url.has_host() => Ok(Source::Http(url)),
            _ => Bucket::object(text).map(|(bucket, key)| Source::Object(bucket, key)).ok_or_else(unsupported),
        }
    }

    /// An object of a bucket.
    pub fn in_bucket(bucket: &Bucket, key: &str) -> Source {
        match bucket {
            Bucket::Directory(path) => Source::File(path.join(key)),
            bucket => Source::Object(bucket.clone(), key.to_owned()),
        }
    }

    /// The files that a pattern (`/data/*.ndjson.gz`) stands for, in the order of their names; else the source itself. A file whose name has
    /// a pattern's signs is that file.
    /// `each` is called at each step.
    ///
    /// # Errors
    /// `Source` where a pattern finds nothing, or cannot be read.
    pub fn resolve(self, each: &mut dyn FnMut()) -> Result<Vec<Source>, Error> {
        let path = match &self {
            Source::File(path) if !path.exists() => path.to_string_lossy().into_owned(),
            _ => return Ok(vec![self]),
        };
        if !file_pattern::is_pattern(&path) {
            return Ok(vec![self]);
        }
        let found = file_pattern::find(&path, each).map_err(|fault| Error::source(&self.name(), fault))?;
        Ok(found.into_iter().map(Source::File).collect())
    }

    /// The name under which people see it: no query string, no credentials.
    pub fn name(&self) -> String {
        match self {
            Source::File(path) => format!("file://{}", path.display()),
            Source::Http(url) => redact(url.as_str()),
            Source::Object(bucket, key) => format!("{}/{key}", bucket.url()),
        }
    }

    /// The inflated bytes from where reading can begin, with what tells the content from another: it must agree with what is `known` of it.
    /// Faults of the source come out of `read` as [`inflate::Broken`].
    ///
    /// # Errors
    /// Those of opening and of the first bytes.
    pub fn open(
        &self,
        access: &ClientConfig,
        interrupt: &Interrupt,
        from: Restart,
        known: &Identity,
    ) -> Result<(Inflated, Identity), SourceFault> {
        let mut opened = match self {
            Source::File(path) => file::open(path, from.sent)?,
            Source::Http(url) => match access.accounts.azure_object(url) {
                Some((container, key)) => Azure::new(container, access, interrupt)?.open(&key, from.sent)?,
                None => http::open(url, access, interrupt, from.sent)?,
            },
            Source::Object(bucket, key) => bucket.store(access, interrupt)?.open(key, from.sent)?,
        };
        if !opened.identity.agrees(known) {
            return Err(SourceFault::Changed);
        }
        // What this answer does not say is known from an earlier one, and stays so.
        let identity = opened.identity.clone().or(known);
        opened.delimited |= access.accept_unframed;
        if let Some(length) = identity.length {
            opened.reader =
                Box::new(Whole { reader: opened.reader, left: length.saturating_sub(from.sent), is_file: matches!(self, Source::File(_)) });
        }
        Ok((inflate::inflate(opened, interrupt.clone(), from)?, identity))
    }

    /// Asks whether its content is still what was read: a file's length, inode and times, an object's identity. A web server is not asked, since it
    /// may not answer twice.
    ///
    /// # Errors
    /// `Changed`.
    pub fn confirm(&self, access: &ClientConfig, interrupt: &Interrupt, known: &Identity) -> Result<(), SourceFault> {
        let now = match self {
            Source::Http(_) => return Ok(()),
            Source::File(path) => file::identity(&std::fs::metadata(path).map_err(file::fault)?),
            Source::Object(bucket, key) => bucket.store(access, interrupt)?.head(key)?.identity(),
        };
        if now.agrees(known) { Ok(()) } else { Err(SourceFault::Changed) }
    }
}

/// The rest of a source, which must have as many bytes as are known to be there: neither a server that sends less than was asked for nor a file that
/// shrinks or grows while it is read is whole.
struct Whole {
    reader: Box<dyn Read + Send>,
    left: u64,
    is_file: bool,
}

impl Read for Whole {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        match self.left.checked_sub(count as u64) {
            None => return Err(Broken::io(SourceFault::Changed)),
            Some(left) if left > 0 && count == 0 && !buffer.is_empty() => {
                return Err(Broken::io(match self.is_file {
                    true => SourceFault::Changed,
                    false => SourceFault::Truncated(format!("{left} bytes are missing at its end")),
                }));
            }
            Some(left) => self.left = left,
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_of_buckets_are_sources() {
        let name = |bucket: &str, key: &str| Source::in_bucket(&Bucket::parse(bucket).unwrap(), key).name();
        assert_eq!(name("/a", "c/d"), "file:///a/c/d");
        assert_eq!(name("gs://b", "c d"), "gs://b/c d");
        for bucket in ["s3://b", "az://b", "/a", "/"] {
            let bucket = Bucket::parse(bucket).unwrap();
            assert_eq!(bucket.key(&Source::in_bucket(&bucket, "c/d e").name()), Some("c/d e"));
        }
    }

    #[test]
    fn urls_and_paths_name_sources() {
        assert_eq!(Source::parse("file:///tmp/a%20b.gz").unwrap(), Source::File("/tmp/a b.gz".into()));
        assert_eq!(Source::parse("/tmp/x").unwrap(), Source::File("/tmp/x".into()));
        assert!(matches!(Source::parse("https://h/p?q=1").unwrap(), Source::Http(_)));
        let object = Source::Object(Bucket::S3("b".to_owned()), "a b/ä?.gz".to_owned());
        assert_eq!(Source::parse("s3://b/a b/ä?.gz").unwrap(), object);
        assert_eq!(object.name(), "s3://b/a b/ä?.gz");
        for text in [
            "",
            "x",
            "ftp://h/p",
            "file://host/p",
            "file:relative",
            "http://",
            "javascript:1",
            "../x",
            "s3://b",
            "s3://b/",
            "s3:///k",
            "s3://b/k?secret=x",
        ] {
            assert!(Source::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_hold_no_secret() {
        assert_eq!(Source::parse("https://u:p@h:8080/a/b?sig=SECRET#f").unwrap().name(), "https://h:8080/a/b");
        assert_eq!(redact("s3://bucket/key?secret=1"), "s3://bucket/key");
        assert_eq!(redact("nonsense?secret"), "nonsense");
        assert_eq!(redact("https://user:pa ss@ho st/x?sig"), "https://ho st/x");
    }
}
