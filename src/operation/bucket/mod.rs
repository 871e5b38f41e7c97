//! Loads of buckets: every new file of a bucket, each in one transaction, several at a time. Files are tasks of a job of the kind `bucket`, and then the
//! indexes that it took off; `bulk.loader_file` says which file has been loaded.

pub mod forget;
pub mod listing;
pub mod request;
pub mod spec;
pub mod status;
pub mod submit;
pub mod work;
