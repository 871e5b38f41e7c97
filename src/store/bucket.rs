//! A bucket by its URL: what it is called, where its objects are, and the store that it is.

use crate::error::{Error, SourceFault};
use crate::store::account::{AMAZON_SERVER, Accounts, AwsAccount, AzureContainer, GcpAccount};
use crate::store::file;
use crate::store::interrupt::Interrupt;
use crate::store::net::client_config::ClientConfig;
use crate::store::object::aws_default_credentials;
use crate::store::object::azure::Azure;
use crate::store::object::directory::Directory;
use crate::store::object::gcs::Gcs;
use crate::store::object::object_store::Store;
use crate::store::object::s3::S3;
use crate::store::redact::redact;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use url::Url;

/// Where a bucket really is, whoever's account reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketPlace {
    /// `s3`, `gs`, `az`, `local`.
    pub store: &'static str,
    /// The server; of Azure the storage account; empty for a directory.
    pub endpoint: String,
    /// Of the bucket; empty for a directory, of which the files' paths are whole.
    pub name: String,
}

/// Where objects are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Bucket {
    /// `s3://bucket`.
    S3(String),
    /// `gs://bucket`.
    Gcs(String),
    /// `az://container`.
    Azure(String),
    /// A directory of the database server.
    Directory(PathBuf),
}

impl Bucket {
    /// Reads a URL, or an absolute path of the server.
    ///
    /// # Errors
    /// `Source` (`NotABucket`).
    pub fn parse(text: &str) -> Result<Bucket, Error> {
        let unsupported = || Error::source(&redact(text), SourceFault::NotABucket);
        if text.starts_with('/') {
            return Ok(Bucket::Directory(Path::new(text).components().collect()));
        }
        if text.to_ascii_lowercase().starts_with("file://") {
            return Url::parse(text).ok().and_then(|url| url.to_file_path().ok()).map(Bucket::Directory).ok_or_else(unsupported);
        }
        let (scheme, rest) = text.split_once("://").ok_or_else(unsupported)?;
        Bucket::named(scheme, rest.strip_suffix('/').unwrap_or(rest)).ok_or_else(unsupported)
    }

    /// Of the store of a scheme the bucket of a name.
    fn named(scheme: &str, name: &str) -> Option<Bucket> {
        let of = match scheme.to_ascii_lowercase().as_str() {
            "s3" => Bucket::S3,
            "gs" => Bucket::Gcs,
            "az" => Bucket::Azure,
            _ => return None,
        };
        (!name.is_empty() && !name.contains(['/', '?', '#', '@'])).then(|| of(name.to_owned()))
    }

    /// An object by its URL: the bucket and the key, which stands there as it is, nothing of it percent-encoded. What looks like a query is
    /// refused: it may be meant to hold a secret.
    pub fn object(text: &str) -> Option<(Bucket, String)> {
        let (scheme, rest) = text.split_once("://")?;
        let (name, key) = rest.split_once('/')?;
        let has_query = key.split_once('?').is_some_and(|(_, rest)| rest.contains('='));
        let bucket = Bucket::named(scheme, name)?;
        (!key.is_empty() && !has_query).then(|| (bucket, key.to_owned()))
    }

    /// Where it is, reached by these accounts.
    pub fn place(&self, accounts: &Accounts) -> BucketPlace {
        let endpoint = match self {
            Bucket::S3(_) => accounts.aws.as_ref().map_or_else(|| AMAZON_SERVER.to_owned(), AwsAccount::server),
            Bucket::Gcs(_) => accounts.gcp.as_ref().map(GcpAccount::server).unwrap_or_default(),
            Bucket::Azure(name) => {
                let container = accounts.azure.iter().find(|container| container.container == *name);
                container.map(AzureContainer::server).unwrap_or_default()
            }
            Bucket::Directory(_) => String::new(),
        };
        self.place_on(&endpoint)
    }

    /// Where it is, on a server of this name.
    pub fn place_on(&self, endpoint: &str) -> BucketPlace {
        let (store, name) = match self {
            Bucket::S3(name) => ("s3", name.as_str()),
            Bucket::Gcs(name) => ("gs", name.as_str()),
            Bucket::Azure(name) => ("az", name.as_str()),
            Bucket::Directory(_) => ("local", ""),
        };
        BucketPlace { store, endpoint: endpoint.to_owned(), name: name.to_owned() }
    }

    /// An object of it as `bulk.loader_file` names it: its key, or its whole path.
    pub fn file(&self, key: &str) -> String {
        match self {
            Bucket::Directory(path) => path.join(key).display().to_string(),
            _ => key.to_owned(),
        }
    }

    /// Its URL as people see it.
    pub fn url(&self) -> String {
        match self {
            Bucket::S3(name) => format!("s3://{name}"),
            Bucket::Gcs(name) => format!("gs://{name}"),
            Bucket::Azure(name) => format!("az://{name}"),
            Bucket::Directory(path) => format!("file://{}", path.display().to_string().trim_end_matches('/')),
        }
    }

    /// The same under the one name that it has in the file system.
    ///
    /// # Errors
    /// That of a directory that cannot be found.
    pub fn canonical(&self) -> Result<Bucket, SourceFault> {
        match self {
            Bucket::Directory(path) => path.canonicalize().map(Bucket::Directory).map_err(file::fault),
            bucket => Ok(bucket.clone()),
        }
    }

    /// The key of an object by the name of its source.
    pub fn key<'a>(&self, source: &'a str) -> Option<&'a str> {
        source.strip_prefix(&self.url())?.strip_prefix('/')
    }

    /// The store, for whom `access` says.
    ///
    /// # Errors
    /// `NoAccount`, and those of the store's `new`.
    pub fn store(&self, access: &ClientConfig, interrupt: &Interrupt) -> Result<Box<dyn Store>, SourceFault> {
        let (accounts, none) = (&access.accounts, SourceFault::NoAccount);
        Ok(match self {
            Bucket::S3(name) => {
                let account = match &accounts.aws {
                    Some(account) => account.clone(),
                    None if access.as_machine => aws_default_credentials::account(interrupt)?,
                    None => return Err(none),
                };
                Box::new(S3::new(name, &account, access, interrupt)?)
            }
            Bucket::Gcs(name) => Box::new(Gcs::new(name, accounts.gcp.as_ref().ok_or(none)?, access, interrupt)?),
            Bucket::Azure(name) => {
                let container = accounts.azure.iter().find(|container| container.container == *name);
                Box::new(Azure::new(container.ok_or(none)?, access, interrupt)?)
            }
            Bucket::Directory(path) => Box::new(Directory::new(path, interrupt)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_named_by_urls() {
        assert_eq!(Bucket::parse("s3://b").unwrap(), Bucket::S3("b".to_owned()));
        assert_eq!(Bucket::parse("S3://b/").unwrap().url(), "s3://b");
        assert_eq!(Bucket::parse("file:///a%20b/").unwrap().url(), "file:///a b");
        assert_eq!(Bucket::object("az://c/d/e"), Some((Bucket::Azure("c".to_owned()), "d/e".to_owned())));
        for text in ["", "b", "s3://", "s3:///", "s3://b/prefix", "s3://k:s@b", "s3://b?x=SECRET", "ftp://b", "file://host/a"] {
            let error = Bucket::parse(text).unwrap_err();
            assert!(!format!("{error:?}").contains("SECRET"), "{text}");
        }
    }
}
