//! Loads of buckets: every new file of a bucket, each in one transaction, several at a time.
//!
//! What is to be loaded stands in `bulk.loader_file`, what a call does in a job of the kind `bucket`: files are its parts, then the indexes that
//! it took off.

pub mod call;
pub mod listing;
pub mod params;
pub mod run;
pub mod status;
